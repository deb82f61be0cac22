package main

import (
	"bytes"
	"errors"
	"flag"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/history"
)

func TestParse(t *testing.T) {
	t.Setenv("CAPSULE_STATE", "")
	t.Setenv(variableAddress, "")
	t.Setenv("CAPSULE_CONFIG", "/dev/null")
	standard := options{address: "/s/capsuled.sock", state: "/s", format: "text", interval: 10 * time.Second, gid: noGroup, hostBudget: true,
		admission: admission.Limits{MaxQueued: 256, MemoryBudget: hostBudget()},
		history:   history.Limits{Age: 30 * 24 * time.Hour, Count: 10_000, Bytes: 1 << 30, OutputBytes: 512 << 20, Owners: history.Owners{Exempt: uint32(os.Geteuid())}},
		pool:      supervisor.PoolLimits{Size: 4, Idle: time.Minute}}
	for _, c := range []struct {
		args string
		want func(*options)
	}{
		{"--state /s", func(*options) {}},
		{"--state /s --address /a/b.sock", func(o *options) { o.address = "/a/b.sock" }},
		{"--state /s --log-format json --log-level debug", func(o *options) { o.format, o.level = "json", slog.LevelDebug }},
		{"--state /s --max-concurrent 7 --max-queued 0", func(o *options) { o.admission.MaxConcurrent, o.admission.MaxQueued = 7, 0 }},
		{"--state /s --memory-budget 1.5GiB", func(o *options) { o.admission.MemoryBudget, o.hostBudget = 3<<29, false }},
		{"--state /s --memory-budget 0", func(o *options) { o.admission.MemoryBudget, o.hostBudget = 0, false }},
		{"--state /s --history-age 7d --history-count 0 --history-bytes 5M --history-output-bytes 0", func(o *options) {
			o.history = history.Limits{Age: 7 * 24 * time.Hour, Bytes: 5 << 20, Owners: o.history.Owners}
		}},
		{"--state /s --history-output-bytes 3M", func(o *options) { o.history.OutputBytes = 3 << 20 }},
		{"--state /s --history-age 90m", func(o *options) { o.history.Age = 90 * time.Minute }},
		{"--state /s --metrics unix:/x/y", func(o *options) { o.metrics = "unix:/x/y" }},
		{"--state /s --metrics [::1]:0", func(o *options) { o.metrics = "[::1]:0" }},
		{"--state /s --metrics localhost:9", func(o *options) { o.metrics = "localhost:9" }},
		{"--state /s --audit-log /var/log/a --sweep-interval 1s", func(o *options) { o.audit, o.interval = "/var/log/a", time.Second }},
		{"--state /s --address /run/x --group root", func(o *options) { o.address, o.gid = "/run/x", 0 }},
		{"--state /s --drain", func(o *options) { o.drain = true }},
	} {
		want := standard
		c.want(&want)
		var said bytes.Buffer
		got, err := parse(strings.Fields(c.args), &said)
		got.args, got.config, got.given = nil, nil, ""
		if err != nil || !reflect.DeepEqual(got, want) || said.Len() > 0 {
			t.Errorf("%s: %+v, %v, said %q; want %+v", c.args, got, err, said.String(), want)
		}
	}
	if standard.admission.MemoryBudget < 1<<20 {
		t.Errorf("the memory of this host gives a budget of %d", standard.admission.MemoryBudget)
	}
}

func TestEnvironmentGivesAddressAndState(t *testing.T) {
	t.Setenv("CAPSULE_STATE", "/e")
	t.Setenv(variableAddress, "/e2/sock")
	o, err := parse(nil, &bytes.Buffer{})
	if err != nil || o.state != "/e" || o.address != "/e2/sock" {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = parse([]string{"--state", "/f", "--address", "/g"}, &bytes.Buffer{})
	if err != nil || o.state != "/f" || o.address != "/g" {
		t.Errorf("flags do not come first: %+v, %v", o, err)
	}
}

func TestBadFlagsNameTheFlagAndTheRemedy(t *testing.T) {
	for args, want := range map[string][]string{
		"x":                           {"\"x\"", "flag"},
		"--nope":                      {"-nope", "--help"},
		"--log-format xml":            {"-log-format", "text, json"},
		"--log-level loud":            {"-log-level", "debug, info"},
		"--max-concurrent -1":         {"-max-concurrent", "0 to"},
		"--max-queued many":           {"-max-queued", "0 to"},
		"--memory-budget 5X":          {"-memory-budget", "KiB"},
		"--memory-budget -5":          {"-memory-budget", "KiB"},
		"--history-age -1h":           {"-history-age", "30d"},
		"--history-age xd":            {"-history-age", "30d"},
		"--history-count 99999999999": {"-history-count", "0 to"},
		"--history-bytes 1e3":         {"-history-bytes", "KiB"},
		"--history-output-bytes -1":   {"-history-output-bytes", "KiB"},
		"--group no-such-group-here":  {"-group", "groupadd"},
		"--state /s --group root":     {"--group", "--address"},
		"--metrics 0.0.0.0:9464":      {"-metrics", "127.0.0.1"},
		"--metrics example.org:9464":  {"-metrics", "127.0.0.1"},
		"--metrics :9464":             {"-metrics", "127.0.0.1"},
		"--metrics 127.0.0.1":         {"-metrics", "a port"},
		"--metrics 127.0.0.1:99999":   {"-metrics", "a port"},
		"--metrics unix:relative":     {"-metrics", "absolute"},
		"--sweep-interval 1ms":        {"-sweep-interval", "100ms"},
		"--sweep-interval soon":       {"-sweep-interval", "100ms"},
		"--drain=perhaps":             {"-drain"},
	} {
		var said bytes.Buffer
		_, err := parse(strings.Fields(args), &said)
		for _, w := range want {
			if err == nil || !strings.Contains(said.String(), w) {
				t.Errorf("%s: %v, said %q; want %q in it", args, err, said.String(), w)
			}
		}
		if n := strings.Count(said.String(), "\n"); n != 2 {
			t.Errorf("%s: said %d lines, not 2: %q", args, n, said.String())
		}
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

func TestHelpTellsEveryFlag(t *testing.T) {
	var said bytes.Buffer
	if _, err := parse([]string{"--help"}, &said); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("help: %v", err)
	}
	for _, name := range []string{"address", "state", "log-format", "log-level", "max-concurrent", "max-queued", "memory-budget", "history-age",
		"history-count", "history-bytes", "history-output-bytes", "group", "metrics", "audit-log", "drain", "version", "sweep-interval"} {
		if !regexp.MustCompile(`(?m)^  --` + name + `( |$)`).MatchString(said.String()) {
			t.Errorf("the help has no --%s", name)
		}
	}
	// hack/gendocs makes the page of the manual from this file.
	const golden = "testdata/help.txt"
	if *update {
		if err := os.WriteFile(golden, said.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || !bytes.Equal(want, said.Bytes()) {
		t.Errorf("%s differs (%v); run go test -run HelpTells -update, then make generate:\n%s", golden, err, &said)
	}
}

// TestConfigurationBelowFlags: a flag wins over the file, the file over what is
// built in.
func TestConfigurationBelowFlags(t *testing.T) {
	t.Setenv("CAPSULE_STATE", "")
	path := t.TempDir() + "/c.toml"
	text := "[daemon]\nmax_concurrent = 3\nmax_queued = 4\nlog_level = \"warn\"\nmemory_budget_bytes = 5000000\n[state]\ndirectory = \"/s\"\nhistory_age_seconds = 60\n[security]\naudit_log = \"/a/log\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--config", path, "--max-queued", "0", "--memory-budget", "6000000"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if o.admission != (admission.Limits{MaxConcurrent: 3, MemoryBudget: 6000000}) || o.level != slog.LevelWarn || o.state != "/s" || o.history.Age != time.Minute || o.history.Count != 10_000 || o.audit != "/a/log" {
		t.Errorf("%+v", o)
	}
	if err := os.WriteFile(path, []byte("[daemon]\nmax_quued = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if _, err := parse([]string{"--config", path}, &said); err == nil || !strings.Contains(said.String(), "max_queued") {
		t.Errorf("a misspelt key: %v, said %q", err, said.String())
	}
}
