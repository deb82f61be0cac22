package supervisor

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/history"
)

// historyPatience is how long another process may hold the history.
const historyPatience = 2 * time.Second

// history calls f with the history. A daemon holds it; others open it for each
// use, so that they are not in one another's way.
func (s *Supervisor) history(f func(*history.Store) error) error {
	if s.daemon != nil {
		return f(s.daemon.past)
	}
	h, err := s.openHistory()
	if err != nil {
		return err
	}
	return errors.Join(f(h), h.Close())
}

func (s *Supervisor) openHistory() (*history.Store, error) {
	path := s.state.History()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.Wrap(fault.IO, "make history", err).WithPath(path).WithHint("Set CAPSULE_STATE to a directory that this user can write.")
	}
	h, err := history.Open(path, history.Options{Lock: historyPatience, Limits: s.retention})
	if err == nil && s.warn != nil {
		if damaged := h.Damaged(); damaged != "" {
			s.warn("the history was damaged and is set aside as " + damaged + "; a new one is begun")
		}
		if h.Cut() {
			s.warn("the history was damaged: " + historyCut)
		}
	}
	return h, err
}

// historyCut is what is told of a history that was cut and has lost nothing.
const historyCut = "the file was cut short where it holds nothing; it is whole again"

// outputGone is the warning in a response whose output the history has dropped.
const outputGone = "output is no longer kept"

// pastResponse is the response of an execution in the history, with its output
// if that has no more bytes than most.
func pastResponse(h *history.Store, id string, most int64) (*spec.Response, error) {
	r, err := withOutput(h, id, most)
	if err != nil && fault.From(err, "").Code == fault.NotFound {
		// Its output was dropped while it was read, which the record tells now.
		return withOutput(h, id, most)
	}
	return r, err
}

func withOutput(h *history.Store, id string, most int64) (*spec.Response, error) {
	rec, err := h.Get(id)
	if err != nil {
		return nil, err
	}
	r, err := spec.DecodeResponse(rec.Response)
	if err != nil {
		return nil, fault.New(fault.StateUnreadable, "decode response", err.Error())
	}
	if rec.OutputDropped {
		r.Warnings = append(r.Warnings, outputGone)
		return r, nil
	}
	if r.Output == nil {
		return r, nil
	}
	if r.OutputElided = rec.StdoutBytes+rec.StderrBytes > most; r.OutputElided {
		return r, nil
	}
	stdout, err := pastOutput(h, id, "stdout")
	if err != nil {
		return nil, err
	}
	stderr, err := pastOutput(h, id, "stderr")
	if err != nil {
		return nil, err
	}
	r.SetOutput(stdout, stderr)
	return r, nil
}

func pastOutput(h *history.Store, id, stream string) ([]byte, error) {
	out, err := h.Output(id, stream)
	if err != nil {
		return nil, err
	}
	defer out.Close() // read only
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return (&keptStream{from: out, size: size}).all()
}
