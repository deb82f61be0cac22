// Package supervisor admits executions, starts one capsule-shim for each and
// talks to it over ttrpc. capsulectl embeds it; capsuled serves it.
package supervisor

import (
	"cmp"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/history"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// Options configure a supervisor.
type Options struct {
	// StateDir is the state directory. Empty: $CAPSULE_STATE, else /run/capsule
	// as root, else $XDG_RUNTIME_DIR/capsule.
	StateDir string
	// ShimPath is the capsule-shim binary. Empty: $CAPSULE_SHIM, else beside the
	// running executable, else in PATH.
	ShimPath string
	// Policy is what the configuration says; nil: the built-in rules alone.
	Policy *policy.Policy
	// CgroupBeside makes the cgroups of sandboxes beside the own one, also where
	// that is delegated: see runtime/cgroup.Beside.
	CgroupBeside bool
	// Overdue is how long after its time-out and grace an execution may end. A shim
	// that takes longer, being stopped for instance, does not do its work: it is
	// killed, and its sandbox with it. 0: 5 minutes, which no slow host needs.
	Overdue time.Duration
	// Warn is told of damage that was met and survived; nil: nobody is. A daemon
	// tells it by events.
	Warn func(message string)
}

// Supervisor is safe for concurrent use.
type Supervisor struct {
	state     layout.State
	shim      string
	beside    bool
	overdue   time.Duration
	warn      func(string)
	policy    atomic.Pointer[policy.Policy] // nil: the built-in one
	retention history.Limits
	daemon    *daemon    // nil: nobody stays to mind executions
	large     sync.Mutex // held while a large result is collected
}

// Streams are the caller's ends. A nil Stdout or Stderr is not streamed live
// (the response carries what was kept in any case). A nil Stdin leaves the
// request's own stdin in force.
type Streams struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// New finds the shim and prepares the state directory. Errors: E6004 when there
// is no shim, E6001 when the directory cannot be made, E5004 when it is not the
// caller's alone.
func New(o Options) (*Supervisor, error) {
	state, err := layout.Find(o.StateDir)
	if err != nil {
		return nil, err
	}
	shim, err := findShim(o.ShimPath)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{state: state, shim: shim, beside: o.CgroupBeside, warn: o.Warn, overdue: cmp.Or(o.Overdue, 5*time.Minute)}
	s.policy.Store(o.Policy)
	return s, s.prepare()
}

// prepare makes the directories and refuses a state directory that somebody
// else made or can look into.
func (s *Supervisor) prepare() error {
	for _, dir := range []string{string(s.state), s.state.Executions()} {
		// One after the other: nothing is made in a directory before it is checked.
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fault.Wrap(fault.IO, "make state directory", err).WithHint("Set CAPSULE_STATE to a directory that this user can write.")
		}
		info, err := os.Lstat(dir)
		if err != nil {
			return fault.Wrap(fault.IO, "check state directory", err)
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !info.IsDir() || !ok || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
			return fault.New(fault.NotAuthorised, "check state directory", "it is not a directory of this user with mode 0700").WithPath(dir).
				WithHint("Remove it, chmod it to 0700, or set CAPSULE_STATE to another directory.")
		}
	}
	return nil
}

// FindShim is the path of the capsule-shim that a supervisor without ShimPath
// starts. E6004: there is none.
func FindShim() (string, error) { return findShim("") }

// findShim looks for the capsule-shim binary.
func findShim(given string) (string, error) {
	if given == "" {
		given = os.Getenv("CAPSULE_SHIM")
	}
	if given != "" {
		return filepath.Abs(given)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "capsule-shim")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	found, err := exec.LookPath("capsule-shim")
	if err != nil {
		return "", fault.New(fault.Unreachable, "find capsule-shim", "it is neither beside this program nor in PATH").
			WithHint("Install capsule-shim beside capsulectl, or set CAPSULE_SHIM to its path.")
	}
	return filepath.Abs(found)
}

// executionID checks a given id, or makes a new one.
func executionID(given string) (string, error) {
	if given == "" {
		id, err := uuid.NewRandom()
		if err != nil {
			return "", fault.Wrap(fault.SystemCall, "make execution id", err)
		}
		return id.String(), nil
	}
	id, err := uuid.Parse(given)
	if err != nil || id.String() != given {
		return "", fault.New(fault.InvalidValue, "check execution id", "it is not a UUID in lower case").WithField("/execution_id")
	}
	return given, nil
}

// Start starts an execution. id is a UUID, empty: a new one is made. An error
// means that there is no execution; whatever goes wrong later is told by the
// response of Wait. Cancelling ctx kills the execution (reason killed_by_caller).
func (s *Supervisor) Start(ctx context.Context, req *spec.Request, id string, st Streams) (*Execution, error) {
	id, err := executionID(id)
	if err != nil {
		return nil, err
	}
	if err := s.permit(id, req); err != nil {
		return nil, err
	}
	request := req.Encode()
	e, err := s.spawn(id, req.Command, request, st)
	if err != nil {
		return nil, err
	}
	e.latest = s.latest(timeoutOf(req))
	e.begin(ctx, request, st)
	e.sweep = s.sweepDead(id)
	return e, nil
}

// Explain returns the launch plan of a request as text, without running it.
func (s *Supervisor) Explain(ctx context.Context, req *spec.Request) (string, error) {
	if p := s.policy.Load(); p != nil { // nothing is run, so nothing is written down
		if err := p.Check(uint32(os.Geteuid()), req); err != nil {
			return "", err
		}
	}
	return s.explain(ctx, req, "")
}

// ExplainBundle returns the launch plan of the OCI bundle in dir as text.
func (s *Supervisor) ExplainBundle(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fault.Wrap(fault.InvalidPath, "find bundle", err)
	}
	return s.explain(ctx, nil, dir)
}

// StateDir is the state directory in use.
func (s *Supervisor) StateDir() string { return string(s.state) }

// Sweep removes what dead shims left and waits for it. It returns whether there
// was anything.
func (s *Supervisor) Sweep() bool { return s.sweepDead("")() }
