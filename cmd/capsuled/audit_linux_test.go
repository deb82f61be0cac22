package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/config"
)

// starter answers Start.
type starter struct {
	api.Supervisor
	started *api.Started
	err     error
}

func (s *starter) Start(context.Context, *api.StartRequest) (*api.Started, error) {
	return s.started, s.err
}

func linesOf(t *testing.T, path string) (lines []auditLine) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var l auditLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines
}

func TestAuditOfAdmissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	a, err := openAudit(path, config.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	e := api.Summary{ID: "7", Status: api.StatusStarting, Command: []string{"true"}}
	queued := e
	queued.Status = api.StatusQueued
	list := fault.List{fault.New(fault.MissingField, "", "no").WithField("/command"), fault.New(fault.OutOfRange, "", "no")}
	for _, s := range []starter{
		{started: &api.Started{Summary: e, Created: true}},
		{started: &api.Started{Summary: queued, Created: true}},
		{started: &api.Started{Summary: e}},
		{err: list},
	} {
		_, _ = (&audited{&s, 1000, a, func() string { return "h" }}).Start(context.Background(), &api.StartRequest{ID: "7"})
	}
	lines := linesOf(t, path)
	want := []string{"admitted", "queued", "existing", "refused"}
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, l := range lines {
		if l.Decision != want[i] || l.Type != "admission" || l.UID == nil || *l.UID != 1000 || l.ExecutionID != "7" || l.Time.IsZero() {
			t.Errorf("%+v, want %s", l, want[i])
		}
	}
	if l := lines[3]; l.Code != "E1002" || l.Field != "/command" {
		t.Errorf("%+v", l)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestAuditThatCannotBeOpened: the daemon says why, once, and has nothing to close.
func TestAuditThatCannotBeOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nothing", "audit")
	a, err := openAudit(path, config.Default())
	if a != nil || err == nil {
		t.Fatalf("%v, %v", a, err)
	}
	if text := err.Error(); text != "E6001 open audit log: "+path+": no such file or directory" {
		t.Error(text)
	}
}

func TestAuditGoesOnInANewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	if err := os.WriteFile(path, []byte("{\"type\":\"end\",\"sequence\":41,\"execution_id\":\"a\"}\n{\"type\":\"end\",\"seq"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := openAudit(path, config.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	if sequence, ended := a.last(); sequence != 41 || len(ended) != 1 || ended[0] != "a" {
		t.Errorf("last: %d, %v", sequence, ended)
	}
	a.end(&api.Event{Sequence: 42, ExecutionID: "b", Attributes: map[string]string{"status": "killed", "signal": "9"}},
		func(string) (api.Summary, bool) { return api.Summary{}, false })
	if sequence, _ := a.last(); sequence != 42 {
		t.Errorf("half a line swallowed the next: %d", sequence)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	a.end(&api.Event{Sequence: 43}, func(string) (api.Summary, bool) { return api.Summary{}, false })
	if exists(path) {
		t.Error("the log was reopened by itself")
	}
	if err := a.reopen(); err != nil {
		t.Fatal(err)
	}
	a.end(&api.Event{Sequence: 44, ExecutionID: "c"}, func(string) (api.Summary, bool) { return api.Summary{Owner: 5}, true })
	lines := linesOf(t, path)
	if len(lines) != 1 || lines[0].Sequence != 44 || *lines[0].UID != 5 {
		t.Errorf("%+v", lines)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.reopen(); err == nil || a.trouble() == nil {
		t.Error("a directory was opened")
	}
	a.end(&api.Event{Sequence: 45}, func(string) (api.Summary, bool) { return api.Summary{}, false }) // into the old file
	if a.trouble() != nil {
		t.Error(a.trouble())
	}
}

func TestAuditOfAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := &audit{path: "/dev/full", file: full}
	defer full.Close()
	a.write(&auditLine{Time: time.Now()})
	if a.trouble() == nil {
		t.Error("a full disk is not told")
	}
	if _, err := openAudit("/dev/full", config.Default()); err == nil {
		t.Error("a device was opened")
	}
}
