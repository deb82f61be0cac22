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
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
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

// auditCommand is how many bytes of a command a line holds at most.
const auditCommand = 8 << 10

// auditLine is one line of the audit log; docs/operations.md describes it.
type auditLine struct {
	Time        time.Time `json:"time"`
	Type        string    `json:"type"`
	ExecutionID string    `json:"execution_id,omitempty"`
	// UID is who asked, or whose execution it was; null: not known any more.
	UID      *uint32 `json:"uid"`
	Decision string  `json:"decision,omitempty"`
	Status   string  `json:"status,omitempty"`
	Reason   string  `json:"reason,omitempty"`
	ExitCode *int    `json:"exit_code,omitempty"`
	Signal   *int    `json:"signal,omitempty"`
	// Code and Field say why it was refused, or what went wrong.
	Code    string            `json:"code,omitempty"`
	Field   string            `json:"field,omitempty"`
	Command []string          `json:"command,omitempty"`
	Cut     bool              `json:"command_cut,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Sequence is that of the event that told of the end.
	Sequence uint64 `json:"sequence,omitempty"`
}

// audit is a file to which lines are appended. A nil one writes nothing.
type audit struct {
	path string

	mu      sync.Mutex
	file    *os.File
	problem error // why the last line, or opening the file, failed
}

// openAudit opens or makes the file. An empty path gives nil.
func openAudit(path string) (*audit, error) {
	if path == "" {
		return nil, nil
	}
	a := &audit{path: path}
	return a, a.reopen()
}

// reopen goes on in the file that is at the path now, for rotation. When that
// fails it goes on in the old one.
func (a *audit) reopen() error {
	if a == nil {
		return nil
	}
	f, err := openAppend(a.path)
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

func openAppend(path string) (*os.File, error) {
	fail := func(err error) error {
		return fault.Wrap(fault.IO, "open audit log", err).WithPath(path).
			WithHint("Give --audit-log a regular file, in a directory that this user can write.")
	}
	// Without O_NONBLOCK a fifo would wait for a reader.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fail(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil && info.Mode().Perm() != 0o600 {
		err = f.Chmod(0o600)
	}
	if err == nil {
		err = endLine(f, info.Size())
	}
	if err != nil {
		f.Close()
		return nil, fail(err)
	}
	return f, nil
}

// endLine ends a line that a full disk or a crash cut off.
func endLine(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err := f.Write([]byte("\n"))
	return err
}

// write appends one line by one system call, so that lines never mix.
func (a *audit) write(l *auditLine) {
	if a == nil {
		return
	}
	l.Time = l.Time.UTC()
	l.Command, l.Cut = cut(l.Command)
	data, err := json.Marshal(l)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		_, err = a.file.Write(append(data, '\n'))
	}
	a.problem = err
}

// cut bounds a command.
func cut(command []string) ([]string, bool) {
	room := auditCommand
	for i, arg := range command {
		if len(arg) > room {
			return append(command[:i:i], strings.ToValidUTF8(arg[:room], "")), true
		}
		room -= len(arg) + 1
		if room < 0 {
			return command[: i+1 : i+1], i+1 < len(command)
		}
	}
	return command, false
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
}

// Start implements api.Supervisor.
func (a *audited) Start(ctx context.Context, r *api.StartRequest) (*api.Started, error) {
	e, err := a.Supervisor.Start(ctx, r)
	l := &auditLine{Time: time.Now(), Type: auditAdmission, UID: &a.uid, ExecutionID: r.ID}
	switch {
	case err != nil:
		l.Decision = decisionRefused
		f := fault.From(firstOf(err), fault.IO)
		l.Code, l.Field = string(f.Code), f.Field
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
