package shim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/command"
	"github.com/capsule-run/capsule/shim/process"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// bare is the execution of a command without a sandbox. Its own state: what takes the
// place of process 1 and of the control group.
type bare struct {
	home string
	// user and kernel are the CPU time of what was waited for, and peak the largest
	// resident set among it, in bytes.
	user, kernel time.Duration
	peak         int64
}

// translateBare makes a request ready for a plan without a sandbox.
func translateBare(boot shimapi.Bootstrap, req *spec.Request, home string) (*translation, error) {
	t := &translation{noInit: true, rootless: true, bare: true, ids: [2]int{-1, -1}}
	if boot.Policy == nil || !boot.Policy.AllowProcess {
		return t, fault.New(fault.NotAuthorised, "choose backend", "policy does not allow a command without walls").WithField("/isolation/backend").
			WithHint("Use the namespace backend, or set security.allow_process_backend in the configuration.")
	}
	if err := process.Check(req); err != nil {
		return t, err
	}
	strict, err := fitRlimits(req)
	if err != nil {
		return t, err
	}
	t.warnings = append(strict, process.Warning)
	t.config = process.Config(req, home)
	return t, judgeBare(boot.Policy, t.config)
}

// judgeBare applies the policy to the program that the command leads to on the host.
// Blocked programs cannot be hidden here, so they are not run beside others either.
func judgeBare(p *shimapi.Policy, s *specs.Spec) error {
	seen := *s
	seen.Mounts = []specs.Mount{{Destination: "/", Type: "bind", Source: "/"}}
	tree := command.Tree{Config: &seen}
	masked, err := tree.Judge(p)
	if err == nil && len(masked) > 0 {
		err = fault.New(fault.Unsupported, "check "+p.Section+".blocked_commands", "the process backend cannot hide "+masked[0]).WithField("/isolation/backend").
			WithHint("Use the namespace backend.")
	}
	return err
}

// createBare is create without a sandbox: no control group, no bundle for another
// runtime, a plan without walls.
func (e *execution) createBare(req *spec.Request) (*translation, error) {
	b := &bare{home: filepath.Join(e.dir.Bundle(), "home")}
	t, err := translateBare(e.boot, req, b.home)
	e.warnings = t.warnings
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.home, 0o700); err != nil {
		return nil, fault.Wrap(fault.IO, "make home directory", err)
	}
	e.bare = b
	// Descendants that leave the session still come back to this process when their
	// parents are dead, and are found.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fault.Wrap(fault.SystemCall, "become subreaper", err)
	}
	return t, nil
}

// orphans are the children of this process but the payload.
func (e *execution) orphans() []int {
	var all []int
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	for _, task := range tasks {
		text, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && (e.sandbox == nil || pid != e.sandbox.Pid) {
				all = append(all, pid)
			}
		}
	}
	return all
}

// killBare ends what the payload left: whatever dies hands its own children over to
// this process, until there are none. As long as the payload lives it has them, and
// collect comes again. Process groups are of no use here: their numbers may be those
// of others by now. Something that forks faster than this kills is given up after
// teardownTime.
func (e *execution) killBare() {
	for end := time.Now().Add(teardownTime); time.Now().Before(end); {
		left := e.orphans()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL) // it is our child and not reaped
			e.reapOrphan(pid, 0)
		}
	}
}

// reapOrphan waits for a child other than the payload.
func (e *execution) reapOrphan(pid, flags int) {
	var usage unix.Rusage
	for {
		got, err := unix.Wait4(pid, nil, flags|unix.WALL, &usage)
		if err == unix.EINTR {
			continue
		}
		if err == nil && got == pid {
			e.account(&usage)
		}
		return
	}
}

// solitary reaps what is dead and says whether nothing of the payload lives on.
func (e *execution) solitary() bool {
	for _, pid := range e.orphans() {
		e.reapOrphan(pid, unix.WNOHANG)
	}
	return len(e.orphans()) == 0
}

// account adds what a process and those that it waited for have used.
func (e *execution) account(u *unix.Rusage) {
	e.note(func(*observation) {
		b := e.bare
		b.user += time.Duration(u.Utime.Nano())
		b.kernel += time.Duration(u.Stime.Nano())
		b.peak = max(b.peak, u.Maxrss<<10) // kilobytes, getrusage(2)
	})
}

// measureBare makes counters of what was waited for.
func (e *execution) measureBare() {
	e.note(func(o *observation) {
		b := e.bare
		all := b.user + b.kernel
		o.stats.User, o.stats.Kernel, o.stats.CPU = ptr(b.user), ptr(b.kernel), &all
		o.stats.MemoryPeak = ptr(b.peak)
	})
	e.warnOnce(process.PeakWarning)
}
