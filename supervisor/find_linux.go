package supervisor

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// entry is what is known of an execution.
type entry struct {
	summary api.Summary
	digest  string
	dir     layout.Dir // empty: it is in the history
	memory  int64
	pids    int64
	// foreground: nothing is recorded of it but what its shim tells, request.
	foreground bool
	request    *spec.Request
	// damaged is why the record cannot be read.
	damaged error
}

// place is where it stands in a list.
func (e *entry) place() place { return place{e.summary.Created, e.summary.ID} }

func notFound(id string) error {
	return fault.New(fault.NotFound, "", "no execution "+id)
}

// find looks for an execution in the state directory, then in the history: it
// is in the second before it leaves the first.
func (s *Supervisor) find(id string) (*entry, error) {
	if _, err := executionID(id); err != nil || id == "" {
		return nil, notFound(id)
	}
	e, err := s.inState(id)
	if errors.Is(err, os.ErrNotExist) {
		e, err = s.foreground(id)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return e, err
	}
	err = s.history(func(h *history.Store) error {
		r, err := h.Get(id)
		if err == nil {
			e = &entry{summary: r.Summary, digest: r.Digest}
		}
		return err
	})
	return e, err
}

// removed tells whether an execution with this id was there once.
func (s *Supervisor) removed(id string) (was bool, err error) {
	err = s.history(func(h *history.Store) error {
		was = h.Known(id)
		return nil
	})
	return was, err
}

// inState reads an execution in the state directory. os.ErrNotExist: it has no
// record there.
func (s *Supervisor) inState(id string) (*entry, error) {
	dir := s.state.Execution(id)
	rec, err := shimapi.ReadRecord(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		// Its owner is not known either, so it is ours.
		rec = &shimapi.Record{ExecutionID: id, Owner: uint32(os.Geteuid())}
	}
	e := &entry{summary: summaryOf(rec, statusIn(dir)), digest: rec.Digest, dir: dir, memory: rec.MemoryBytes, pids: rec.MaxPids, damaged: err}
	if e.summary.Status == api.StatusRunning {
		if info, err := os.Stat(dir.Shim()); err == nil {
			e.summary.Started = info.ModTime()
		}
	}
	if told := s.told(id); told != nil {
		describe(&e.summary, told)
	} else if data, err := readResult(dir); err == nil {
		describe(&e.summary, decodeResult(id, rec.Created, data))
	}
	// A directory that left meanwhile is in the history.
	_, err = os.Lstat(dir.Record())
	return e, err
}

// statusIn tells how far an execution without result is.
func statusIn(dir layout.Dir) string {
	if _, err := os.Lstat(dir.Log()); err != nil {
		return api.StatusQueued
	}
	if _, err := os.Lstat(dir.Shim()); err != nil {
		return api.StatusStarting
	}
	return api.StatusRunning
}

func summaryOf(rec *shimapi.Record, status string) api.Summary {
	return api.Summary{ID: rec.ExecutionID, Status: status, Command: rec.Command, Labels: rec.Labels, Owner: rec.Owner,
		Created: rec.Created, KillOnDisconnect: rec.KillOnDisconnect}
}

// describe puts the outcome into a summary.
func describe(s *api.Summary, r *spec.Response) {
	s.Status, s.Reason = string(r.Status), string(r.Termination.Reason)
	s.ExitCode, s.Signal = r.ExitCode, r.Signal
	if r.Timestamps.Started != nil {
		s.Started = *r.Timestamps.Started
	}
	if r.Timestamps.Completed != nil {
		s.Completed = *r.Timestamps.Completed
	}
}

// readResult reads result.json. One that is no file is as damaged as an empty one.
func readResult(dir layout.Dir) ([]byte, error) {
	info, err := os.Lstat(dir.Result())
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return os.ReadFile(dir.Result())
}

// decodeResult reads result.json. A damaged one is told and never guessed.
func decodeResult(id string, created time.Time, data []byte) *spec.Response {
	r, err := spec.DecodeResponse(data)
	if err == nil && r.ExecutionID == id && r.Status != "" && r.Termination.Reason != "" {
		r.OutputElided = r.Output != nil && r.Stdout == nil && r.Output.Stdout.BytesKept+r.Output.Stderr.BytesKept > 0
		return r
	}
	if err == nil {
		err = errors.New("it is incomplete, or another execution's")
	}
	f := fault.New(fault.StateUnreadable, "read result", err.Error()) // not wrapped: a decoder's code would go first
	f.Details = map[string]any{"bytes": len(data)}
	return spec.Lost(id, f, created)
}

// told is the response of an execution that has ended and is not in the history
// yet, if it is in memory: with its output it may be too large to be read for
// everybody who asks. Nobody changes it.
func (s *Supervisor) told(id string) *spec.Response {
	if m := s.minder(id); m != nil {
		return m.told()
	}
	return nil
}

// response loads the response of an ended execution: the whole one, or in a
// daemon one without large output.
func (s *Supervisor) response(e *entry) (*spec.Response, error) {
	id := e.summary.ID
	if told := s.told(id); told != nil {
		return told, nil
	}
	if e.dir != "" {
		data, err := readResult(e.dir)
		if err == nil {
			r := decodeResult(id, e.summary.Created, data)
			if !r.OutputElided || s.daemon != nil {
				return r, nil
			}
			if err = s.fill(r, e.dir); err == nil || !errors.Is(err, errMoved) {
				return r, err
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, fault.Wrap(fault.IO, "read result", err).WithPath(e.dir.Result())
		}
	}
	most := int64(math.MaxInt64)
	if s.daemon != nil {
		most = inlineOutput
	}
	var r *spec.Response
	err := s.history(func(h *history.Store) (err error) {
		r, err = pastResponse(h, id, most)
		return err
	})
	return r, err
}

// lockDead takes the lock of an execution's directory. With wait it waits for
// the shim to be gone, otherwise a living one is errAlive.
func lockDead(dir layout.Dir, wait bool) (*os.File, error) {
	f, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), how)
	}
	if err == nil {
		if info, err := f.Stat(); err == nil && linked(info) {
			return f, nil
		}
		f.Close()
		return nil, os.ErrNotExist
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, errAlive
	}
	return nil, fault.Wrap(fault.IO, "lock execution directory", err).WithPath(string(dir))
}

// openDirectory opens the directory of an execution, without Go's poller, which has no
// use for directories.
func openDirectory(dir layout.Dir) (*os.File, error) {
	for {
		fd, err := unix.Open(string(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), string(dir)), nil
		}
		if err != unix.EINTR {
			return nil, err
		}
	}
}

// errAlive is that somebody holds the lock of an execution.
var errAlive = errors.New("its shim lives")

// errWaits is that nobody holds the lock of an execution, and no shim has begun it.
var errWaits = fmt.Errorf("it waits for its turn: %w", errAlive)

// waiting tells whether no shim was ever started for a recorded execution.
func waiting(dir layout.Dir) bool {
	_, err := os.Lstat(dir.Result())
	return err != nil && statusIn(dir) == api.StatusQueued
}
