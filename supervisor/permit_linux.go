package supervisor

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/auditlog"
	"github.com/capsule-run/capsule/supervisor/history"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// SetPolicy replaces the policy for what is started from now on; nil: the
// built-in rules alone.
func (s *Supervisor) SetPolicy(p *policy.Policy) {
	s.policy.Store(p)
	if s.daemon != nil {
		s.daemon.pool.renew()
	}
	s.emit(api.EventConfigured, "", map[string]string{"policy_hash": s.PolicyHash()})
}

// PolicyRefused tells that a new configuration is wrong and the old one holds.
func (s *Supervisor) PolicyRefused(err error) {
	s.emit(api.EventMisconfigured, "", map[string]string{"error": err.Error(), "policy_hash": s.PolicyHash()})
}

// PolicyHash identifies the policy in force; empty: the built-in rules alone.
func (s *Supervisor) PolicyHash() string {
	if p := s.policy.Load(); p != nil {
		return p.Hash()
	}
	return ""
}

// SetRetention replaces the bounds of a daemon's history.
func (s *Supervisor) SetRetention(l history.Limits) { s.daemon.past.SetLimits(l) }

// permit applies the policy to a request of this process's own user.
func (s *Supervisor) permit(id string, req *spec.Request) error {
	p := s.policy.Load()
	if p == nil {
		return nil
	}
	uid := uint32(os.Geteuid())
	return s.decided(p, id, uid, req, p.Check(uid, req))
}

// decided writes a decision down where no daemon does, which would tell more. An
// execution whose line cannot be written is refused (E6001).
func (s *Supervisor) decided(p *policy.Policy, id string, uid uint32, req *spec.Request, refusal error) error {
	c := &p.Config().Security
	if s.daemon != nil || c.AuditLog == "" {
		return refusal
	}
	l := &auditlog.Line{Time: time.Now(), Type: "admission", ExecutionID: id, UID: &uid, Decision: "admitted",
		Command: req.Command, Labels: req.Labels, PolicyHash: p.Hash()}
	if refusal != nil {
		f := fault.From(refusal, fault.IO)
		l.Decision, l.Code, l.Field = "refused", string(f.Code), f.Field
		l.Rule, _ = f.Details["rule"].(string)
	}
	if err := auditlog.Append(c.AuditLog, l, c.AuditMaxBytes, c.AuditKeep); err != nil && refusal == nil {
		return err
	}
	return refusal
}

// permitFor applies the policy, and what holds for every other user, to the
// request of a caller.
func (s *Supervisor) permitFor(id string, owner uint32, req *spec.Request) error {
	p := s.policy.Load()
	if p == nil {
		return refuseForOthers(owner, req, othersOutput)
	}
	if err := s.decided(p, id, owner, req, p.Check(owner, req)); err != nil {
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
	f := fault.New(fault.TooManyExecutions, "check security.max_concurrent_executions", strconv.Itoa(n-1)+" run, and at most "+strconv.Itoa(most)+" may").
		WithHint("Retry when one of them has ended.")
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
