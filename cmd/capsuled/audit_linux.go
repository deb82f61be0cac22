package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/auditlog"
	"github.com/capsule-run/capsule/supervisor/config"
)

// Kinds of lines.
const (
	auditAdmission = "admission"
	auditEnd       = "end"
)

// Decisions of admission.
const (
	decisionAdmitted = "admitted"
	decisionQueued   = "queued"
	decisionExisting = "existing" // the same request was made before
	decisionRefused  = "refused"
)

// auditLine is one line of the audit log.
type auditLine = auditlog.Line

// audit is a file to which lines are appended. A nil one writes nothing.
type audit struct {
	path string

	mu      sync.Mutex
	most    int64 // bytes after which the file is rotated; 0: never
	keep    int64 // rotated files
	file    *os.File
	problem error // why the last line, or opening the file, failed
}

// openAudit opens or makes the file. An empty path gives nil.
func openAudit(path string, c *config.Config) (*audit, error) {
	if path == "" {
		return nil, nil
	}
	a := &audit{path: path}
	a.bound(c)
	if err := a.reopen(); err != nil {
		return nil, err // there is nothing that could be closed
	}
	return a, nil
}

// reopen goes on in the file that is at the path now, for rotation. When that
// fails it goes on in the old one.
func (a *audit) reopen() error {
	if a == nil {
		return nil
	}
	f, err := auditlog.Open(a.path)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problem = err
	if err != nil {
		return err
	}
	old := a.file
	a.file = f
	if old != nil {
		return errors.Join(old.Sync(), old.Close())
	}
	return nil
}

// write appends one line by one system call, so that lines never mix.
func (a *audit) write(l *auditLine) {
	if a == nil {
		return
	}
	data, err := l.Encode()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		err = a.rotate(int64(len(data)))
	}
	if err == nil {
		_, err = a.file.Write(data)
	}
	a.problem = err
}

// trouble is why the log does not hold all that it should; nil: it does.
func (a *audit) trouble() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.problem
}

func (a *audit) close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.file.Sync(), a.file.Close())
}

// auditTail is how far back last looks, in bytes: further than one line
// reaches.
const auditTail = 256 << 10

// last reads the end of the log: the highest sequence number there, 0 when there
// is none, and the executions whose ends it has. What ended between then and now
// is for this process to write.
func (a *audit) last() (sequence uint64, ended []string) {
	if a == nil {
		return 0, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	info, err := a.file.Stat()
	if err != nil {
		return 0, nil
	}
	from := max(info.Size()-auditTail, 0)
	data, err := io.ReadAll(io.NewSectionReader(a.file, from, auditTail))
	if err != nil {
		return 0, nil
	}
	for line := range strings.Lines(string(data)) {
		var l auditLine
		if json.Unmarshal([]byte(line), &l) != nil || l.Type != auditEnd {
			continue // the first may be half a line
		}
		sequence = max(sequence, l.Sequence)
		ended = append(ended, l.ExecutionID)
	}
	return sequence, ended
}

// audited is a caller's supervisor whose decisions are written down.
type audited struct {
	api.Supervisor
	uid uint32
	log *audit
	// hash identifies the policy in force.
	hash func() string
}

// Start implements api.Supervisor.
func (a *audited) Start(ctx context.Context, r *api.StartRequest) (*api.Started, error) {
	e, err := a.Supervisor.Start(ctx, r)
	l := &auditLine{Time: time.Now(), Type: auditAdmission, UID: &a.uid, ExecutionID: r.ID, PolicyHash: a.hash()}
	switch {
	case err != nil:
		l.Decision = decisionRefused
		f := fault.From(firstOf(err), fault.IO)
		l.Code, l.Field = string(f.Code), f.Field
		l.Rule, _ = f.Details["rule"].(string)
		l.Command = commandOf(r.Request)
	case !e.Created:
		l.Decision = decisionExisting
	case e.Status == api.StatusQueued:
		l.Decision = decisionQueued
	default:
		l.Decision = decisionAdmitted
	}
	if err == nil {
		l.ExecutionID, l.Command, l.Labels = e.ID, e.Command, e.Labels
	}
	a.log.write(l)
	return e, err
}

// firstOf is the first of several faults: a line has room for one.
func firstOf(err error) error {
	var list fault.List
	if errors.As(err, &list) && len(list) > 0 {
		return list[0]
	}
	return err
}

// end writes down how an execution ended. whose tells whose it was.
func (a *audit) end(e *api.Event, whose func(id string) (api.Summary, bool)) {
	l := &auditLine{Time: e.Time, Type: auditEnd, ExecutionID: e.ExecutionID, Sequence: e.Sequence,
		Status: e.Attributes["status"], Reason: e.Attributes["reason"], Code: e.Attributes["code"],
		ExitCode: integer(e.Attributes["exit_code"]), Signal: integer(e.Attributes["signal"])}
	if s, ok := whose(e.ExecutionID); ok {
		l.UID, l.Command, l.Labels = &s.Owner, s.Command, s.Labels
	}
	a.write(l)
}

func integer(s string) *int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil
	}
	return &n
}
