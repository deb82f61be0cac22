// Package api is what a supervisor and its callers agree on: one interface,
// implemented by the supervisor in this process and by the client of a daemon,
// so that a caller need not know which it talks to.
package api

import (
	"context"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// Supervisor runs executions and knows those that run and ran. Errors are
// faults. An execution that does not exist, or is not the caller's, is
// fault.NotFound. All methods may be called concurrently.
type Supervisor interface {
	// Start records an execution and sets it going. It is idempotent by id.
	Start(ctx context.Context, r *StartRequest) (*Started, error)
	// Wait returns the response when the execution has ended, at once when it
	// has already. A done ctx ends the wait, not the execution. A daemon's own
	// supervisor, of which only its server knows, leaves large output out:
	// Response.OutputElided.
	Wait(ctx context.Context, id string) (*spec.Response, error)
	// Kill sends sig to the command, or with all ends the whole tree. It tells
	// whether there was a command to receive it.
	Kill(ctx context.Context, id string, sig syscall.Signal, all bool) (bool, error)
	// Attach passes output on until both streams have ended, and stdin.
	Attach(ctx context.Context, id string, o *AttachOptions) error
	// List returns one page of executions, newest first.
	List(ctx context.Context, f *Filter) (*Page, error)
	// Inspect returns all that is known of one execution.
	Inspect(ctx context.Context, id string) (*Details, error)
	// Stats reads the live counters; no ids: of all that run.
	Stats(ctx context.Context, ids []string) ([]Stats, error)
	// Events calls f for every event after a sequence number, in order, until f
	// fails or ctx is done; without follow until those that are kept are told.
	Events(ctx context.Context, after uint64, follow bool, f func(Event) error) error
	// Remove forgets an ended execution; with force it ends a living one first.
	Remove(ctx context.Context, id string, force bool) error
	// Prune forgets ended executions.
	Prune(ctx context.Context, o *PruneOptions) (*Pruned, error)
	// Info describes the supervisor.
	Info(ctx context.Context) (*Info, error)
}

// StartRequest asks for an execution.
type StartRequest struct {
	// Request is an ExecutionRequest, JSON. Defaults are filled in by the supervisor.
	Request []byte
	// ID is a UUID in lower case; empty: a new one.
	ID string
	// Profile is the name of a profile; empty: none.
	Profile string
	// StreamStdin feeds stdin through Attach instead of the request.
	StreamStdin bool
	// KillOnDisconnect ends the execution when the caller's connection ends and
	// nobody takes it over within ten seconds. Without a daemon it has no effect:
	// such executions are supervisor.Supervisor's Run.
	KillOnDisconnect bool
	// HoldOutput holds the output from its first byte on until an Attach with Hold has
	// come for it, ten seconds at most. Without it a command may have written more than
	// is kept before anybody is there.
	HoldOutput bool
}

// Started is an execution that was set going, or existed already.
type Started struct {
	Summary
	// Created is false when it existed already.
	Created bool
}

// Status is spec's, or one of a living execution.
const (
	StatusQueued   = "queued"
	StatusStarting = "starting"
	StatusRunning  = "running"
)

// Summary is what a list shows of an execution.
type Summary struct {
	ID string `json:"execution_id"`
	// Status is queued, starting or running, and a spec.Status afterwards.
	Status string `json:"status"`
	// Reason is empty while it lives.
	Reason  string            `json:"reason,omitempty"`
	Command []string          `json:"command"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Owner is the uid of whoever started it.
	Owner uint32 `json:"owner_uid"`
	// Times are zero while they lie ahead.
	Created          time.Time `json:"created,omitzero"`
	Started          time.Time `json:"started,omitzero"`
	Completed        time.Time `json:"completed,omitzero"`
	ExitCode         *int      `json:"exit_code"`
	Signal           *int      `json:"signal"`
	KillOnDisconnect bool      `json:"kill_on_disconnect,omitempty"`
}

// Live tells whether the execution has not ended.
func (s *Summary) Live() bool {
	return s.Status == StatusQueued || s.Status == StatusStarting || s.Status == StatusRunning
}

// Details is all that is known of an execution.
type Details struct {
	Summary
	// Request is the resolved request, without inline stdin.
	Request *spec.Request
	// Response has status running and nulls while the execution lives.
	Response *spec.Response
	// Pid is process 1 of the sandbox as the host numbers it; 0: none.
	Pid int
}

// AttachOptions say what to pass on.
type AttachOptions struct {
	// Stdin is passed on when not nil; its end closes the command's stdin.
	Stdin io.Reader
	// Stdout and Stderr are not wanted when nil. A writer that fails is not
	// written to again.
	Stdout, Stderr io.Writer
	// Offsets from which to replay what is kept, in bytes.
	StdoutOffset, StderrOffset int64
	// NoFollow returns after what is kept now, without waiting for more.
	NoFollow bool
	// Hold slows the command down to the writers' speed, as a pipe would.
	// Without it bytes that are not kept may be missed.
	Hold bool
	// Missed, when not nil, is called where bytes are missing, with their number.
	Missed func(stream string, bytes int64)
	// Since leaves out bytes that came before it, as far as that is known: it may
	// begin a little early, and begins with the first byte when nothing is known.
	// What is not kept before the first byte counts as left out. Zero: none.
	Since time.Time
	// LeftOut, when not nil, is called with the number of bytes that Since leaves out.
	LeftOut func(stream string, bytes int64)
	// Times, when not nil, is called before bytes are written that came at another
	// time than those before; zero: it is not known when. Calls for the two
	// streams may come at once.
	Times func(stream string, came time.Time)
}

// PipeTaker is a writer of AttachOptions that can take the rest of a stream from a
// pipe. An Attach with Hold, without Times and with such writers alone may give them
// one where output is long, which then nobody copies on its way.
type PipeTaker interface {
	io.Writer
	// TakePipe takes over the read end of a pipe. What follows of the stream comes
	// through it and not by Write, without a gap; its end may be that of the stream
	// or of the sandbox. An error is like one of Write.
	TakePipe(r *os.File) error
	// Piped tells, at the end of the stream, how many bytes should have come through
	// the pipe. Without such a call the output is not complete, as the error of
	// Attach says, or none came.
	Piped(bytes int64)
}

// Filter chooses executions. The zero value chooses those that live.
type Filter struct {
	// All includes ended executions.
	All bool
	// Statuses to choose; empty: any.
	Statuses []string
	// Labels that an execution must have; an empty value stands for any.
	Labels map[string]string
	// IDPrefix is the beginning of the id.
	IDPrefix string
	// Since leaves out those created before.
	Since time.Time
	// PageSize is 1..1000; 0: 100.
	PageSize int
	// Page is Page.Next of the page before; empty: the newest.
	Page string
}

// Page is one page of a list.
type Page struct {
	Executions []Summary
	// Next is empty on the last page.
	Next string
}

// Stats are the live counters of one execution.
type Stats struct {
	ID      string        `json:"execution_id"`
	Command []string      `json:"command"`
	Metrics *spec.Metrics `json:"metrics"`
	// Memory is what is in use now, in bytes, and Pids how many processes and
	// threads there are; nil: not measured.
	Memory *int64 `json:"memory_bytes"`
	Pids   *int64 `json:"pids"`
	// Limits; 0: none.
	MemoryLimit int64 `json:"memory_limit_bytes"`
	PidsLimit   int64 `json:"pids_limit"`
}

// Event is something that happened.
type Event struct {
	// Sequence rises by one from event to event, also across restarts, where it may skip some.
	Sequence    uint64            `json:"sequence"`
	Time        time.Time         `json:"time"`
	Type        string            `json:"type"`
	ExecutionID string            `json:"execution_id,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
}

// Types of events.
const (
	EventStarting   = "supervisor.started"
	EventStopping   = "supervisor.stopping"
	EventQueued     = "execution.queued"
	EventStarted    = "execution.started"
	EventEnded      = "execution.ended"
	EventRemoved    = "execution.removed"
	EventRecovered  = "execution.recovered"
	EventCollected  = "execution.collected"
	EventLost       = "execution.lost"
	EventRefused    = "execution.refused"
	EventUnreadable = "record.unreadable"
	EventConfigured = "configuration.loaded"
	// EventMisconfigured: a new configuration is wrong; the old one holds.
	EventMisconfigured = "configuration.refused"
	// EventCompacted: the file of the history is smaller now.
	EventCompacted = "history.compacted"
	// EventThreshold: an execution has used so much of a limit.
	EventThreshold = "execution.threshold"
)

// PruneOptions choose ended executions to forget. The zero value: all.
type PruneOptions struct {
	// Before leaves those that ended at or after it; zero: none are left.
	Before time.Time
	// Labels that an execution must have.
	Labels map[string]string
}

// Pruned is what Prune did.
type Pruned struct {
	Removed int   `json:"removed"`
	Bytes   int64 `json:"bytes"`
}

// Info describes a supervisor.
type Info struct {
	Version  string `json:"version"`
	StateDir string `json:"state_dir"`
	// Embedded: there is no daemon.
	Embedded      bool  `json:"embedded"`
	Pid           int   `json:"pid"`
	Running       int   `json:"running"`
	Queued        int   `json:"queued"`
	MaxConcurrent int   `json:"max_concurrent"`
	MaxQueued     int   `json:"max_queued"`
	MemoryBudget  int64 `json:"memory_budget_bytes"`
	MemoryInUse   int64 `json:"memory_reserved_bytes"`
	// History counts the ended executions that are kept, and their bytes.
	History      int       `json:"history_executions"`
	HistoryBytes int64     `json:"history_bytes"`
	Sequence     uint64    `json:"sequence"`
	Started      time.Time `json:"started,omitzero"`
	Draining     bool      `json:"draining"`
	APIVersions  []string  `json:"api_versions"`
}
