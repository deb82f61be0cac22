package supervisor

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// SetPolicy replaces the policy for what is started from now on; nil: the
// built-in rules alone.
func (s *Supervisor) SetPolicy(p *policy.Policy) { s.policy.Store(p) }

// permit applies the policy to a request of this process's own user.
func (s *Supervisor) permit(req *spec.Request) error {
	p := s.policy.Load()
	if p == nil {
		return nil
	}
	return p.Check(uint32(os.Geteuid()), req)
}

// permitFor applies the policy, and what holds for every other user, to the
// request of a caller.
func (s *Supervisor) permitFor(owner uint32, req *spec.Request) error {
	p := s.policy.Load()
	if p == nil {
		return refuseForOthers(owner, req, othersOutput)
	}
	if err := p.Check(owner, req); err != nil {
		return err
	}
	if p.Trusted(owner) {
		return nil
	}
	return refuseForOthers(owner, req, p.Config().Limits.Owner.MaxOutputBytes)
}

// bounds are what one caller may have in the queue and running.
func (s *Supervisor) bounds(owner uint32) admission.Bounds {
	p := s.policy.Load()
	if p == nil {
		return admission.Bounds{}
	}
	b := admission.Bounds{Executions: p.MaxConcurrent(owner)}
	if owner != 0 && owner != uint32(os.Geteuid()) {
		b.MemoryBytes = p.Config().Limits.Owner.MemoryBytes
	}
	return b
}

// roomForOne refuses one execution too many where no queue counts them. The
// caller has locked the directory of the new one, which is counted: of two that
// come at once at the last place both may be refused, never both let through.
func (s *Supervisor) roomForOne() error {
	p := s.policy.Load()
	if p == nil || s.daemon != nil {
		return nil
	}
	most := p.MaxConcurrent(uint32(os.Geteuid()))
	if most == 0 {
		return nil
	}
	n, err := s.live()
	if err != nil {
		return err
	}
	if n <= most {
		return nil
	}
	f := fault.New(fault.TooManyExecutions, "check security.max_concurrent_executions", strconv.Itoa(n-1)+" run, and at most "+strconv.Itoa(most)+" may")
	f.Details = map[string]any{"rule": "security.max_concurrent_executions", "retry_after_ms": 1000}
	return f
}

// live counts the executions whose directory is locked.
func (s *Supervisor) live() (int, error) {
	dir, err := os.Open(s.state.Executions())
	if err != nil {
		return 0, fault.Wrap(fault.IO, "count executions", err)
	}
	defer dir.Close() // opened for reading
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, fault.Wrap(fault.IO, "count executions", err)
	}
	n := 0
	for _, name := range names {
		if _, err := executionID(name); err == nil && locked(int(dir.Fd()), name) {
			n++
		}
	}
	return n, nil
}

func locked(executions int, name string) bool {
	fd, err := unix.Openat(executions, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return !errors.Is(err, unix.ENOENT) // what cannot be known counts
	}
	defer unix.Close(fd) // gives the lock back
	return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) != nil
}

// makeRoom is roomForOne for an execution that was written down; it takes that
// away again when there is no room.
func (s *Supervisor) makeRoom(dir layout.Dir) error {
	err := s.roomForOne()
	if err != nil {
		err = errors.Join(err, os.RemoveAll(string(dir)))
	}
	return err
}
