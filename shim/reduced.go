//go:build linux || darwin

// The process backend where there is no shim process: capsulectl on darwin runs a
// request itself. It stands here beside the verdict that it shares, and is built on Linux
// so that it is tested there.

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/shim/process"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// ReducedOptions are the caller's ends of a Reduced.
type ReducedOptions struct {
	ID string
	// Stdin, when not nil, takes the place of the request's; Stdout and Stderr get the
	// output as it comes.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Launcher is the command line of a program that calls EnterReduced.
	Launcher []string
}

// Reduced is an execution of the process backend in this process. Its session is
// ended with it; what leaves that session is not found again on systems that have no
// subreaper.
type Reduced struct {
	req     *spec.Request
	o       ReducedOptions
	dir     string
	created time.Time
	started time.Time
	cmd     *exec.Cmd
	streams [2]*output.Stream
	follow  sync.WaitGroup
	usage   *syscall.Rusage
	done    chan struct{}

	mu     sync.Mutex
	seen   observation // guarded by mu
	reaped bool        // the number of the process may be another's; guarded by mu
	answer *spec.Response
}

// StartReduced starts a request of the process backend. An error means that nothing
// runs; what goes wrong later the response of Wait tells. A done ctx ends it.
func StartReduced(ctx context.Context, req *spec.Request, o ReducedOptions) (*Reduced, error) {
	if err := errors.Join(process.Check(req), checkReducedLimits(req)); err != nil {
		return nil, err
	}
	r := &Reduced{req: req, o: o, created: time.Now(), done: make(chan struct{})}
	var err error
	if r.dir, err = os.MkdirTemp("", "capsule-"); err != nil {
		return nil, fault.Wrap(fault.IO, "make home directory", err)
	}
	if err := r.launch(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(r.dir))
	}
	stop := context.AfterFunc(ctx, func() { r.end(func(o *observation) { o.cancelled = true }) })
	deadline := time.AfterFunc(time.Duration(req.TimeoutMS)*time.Millisecond, r.timeout)
	go func() {
		defer close(r.done)
		defer stop()
		defer deadline.Stop()
		r.wait()
	}()
	return r, nil
}

// launch starts the command and waits until it runs, or could not.
func (r *Reduced) launch() error {
	home := filepath.Join(r.dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return fault.Wrap(fault.IO, "make home directory", err)
	}
	dir, err := os.Open(r.dir)
	if err != nil {
		return fault.Wrap(fault.IO, "open home directory", err)
	}
	defer dir.Close() // what is kept beyond memory has its own descriptors
	config := process.Config(r.req, home)
	r.cmd = exec.Command(r.o.Launcher[0], r.o.Launcher[1:]...)
	r.cmd.Env, r.cmd.SysProcAttr = config.Process.Env, &syscall.SysProcAttr{Setsid: true}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close() // the command has its own
		}
	}()
	for i, to := range []*io.Writer{&r.cmd.Stdout, &r.cmd.Stderr} {
		read, write, err := output.Pipe()
		if err != nil {
			return err
		}
		name := [...]string{"stdout", "stderr"}[i]
		end := os.NewFile(uintptr(write), name)
		theirs, *to = append(theirs, end), end
		if r.streams[i], err = output.New(read, output.Config{Name: name, Dir: int(dir.Fd()), Limit: r.req.Resources.MaxOutputBytes,
			Policy: r.req.Resources.OutputPolicy, OnLimit: r.outputLimit}); err != nil {
			return err
		}
		r.pass(r.streams[i], [...]io.Writer{r.o.Stdout, r.o.Stderr}[i])
	}
	input, err := r.stdin()
	if err != nil {
		return err
	}
	r.cmd.Stdin, theirs = input, append(theirs, input)
	orderRead, orderWrite, err := os.Pipe()
	if err != nil {
		return fault.Wrap(fault.IO, "make pipe", err)
	}
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return fault.Wrap(fault.IO, "make pipe", errors.Join(err, orderRead.Close(), orderWrite.Close()))
	}
	defer reportRead.Close()
	theirs = append(theirs, orderRead, reportWrite)
	r.cmd.ExtraFiles = []*os.File{orderRead, reportWrite}
	r.mu.Lock() // who signals the command waits until there is one
	err = r.cmd.Start()
	r.mu.Unlock()
	if err != nil {
		return fault.Wrap(fault.IO, "start the command", errors.Join(err, orderWrite.Close()))
	}
	go func() {
		_ = json.NewEncoder(orderWrite).Encode(reducedOrder{Args: config.Process.Args, Env: config.Process.Env, Dir: config.Process.Cwd, Rlimits: config.Process.Rlimits})
		_ = orderWrite.Close() // a launcher that died says so by its report
	}()
	reportWrite.Close() // theirs has it too; the report ends when the launcher is gone
	report, err := io.ReadAll(reportRead)
	r.started = time.Now()
	if err != nil {
		return fault.Wrap(fault.IO, "start the command", err)
	}
	if len(report) > 0 {
		r.note(func(o *observation) { o.failure = reducedFault(report) })
	}
	return nil
}

// stdin is what the command reads.
func (r *Reduced) stdin() (*os.File, error) {
	if r.req.Stdin == nil && r.o.Stdin == nil {
		return os.Open(os.DevNull)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fault.Wrap(fault.IO, "make stdin pipe", err)
	}
	if r.o.Stdin == nil {
		feed(write, *r.req.Stdin)
		return read, nil
	}
	go func() {
		_, _ = io.Copy(write, r.o.Stdin) // EPIPE: the command wants no more
		_ = write.Close()                // nothing is buffered
	}()
	return read, nil
}

// pass hands a stream on as it comes.
func (r *Reduced) pass(s *output.Stream, to io.Writer) {
	if to == nil {
		return
	}
	sub := s.Subscribe(0)
	r.follow.Go(func() {
		defer sub.Close()
		for {
			c, err := sub.Next()
			if err != nil {
				return // io.EOF, or what Bytes tells again
			}
			if _, err := to.Write(c.Data); err != nil {
				return // the response has what was kept
			}
		}
	})
}

func (r *Reduced) note(change func(*observation)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.seen)
}

// signal reaches the command, or with all its whole session's group.
func (r *Reduced) signal(sig syscall.Signal, all bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid := r.cmd.Process.Pid
	if r.reaped {
		return unix.ESRCH
	}
	if all {
		pid = -pid
	}
	return unix.Kill(pid, sig)
}

// end kills everything, for the reason that change notes.
func (r *Reduced) end(change func(*observation)) {
	r.note(func(o *observation) {
		if !o.exited {
			change(o)
		}
	})
	_ = r.signal(unix.SIGKILL, true) // ESRCH: it has ended
}

func (r *Reduced) outputLimit() {
	r.note(func(o *observation) { o.outputLimit = true })
	_ = r.signal(unix.SIGKILL, true) // ESRCH: it has ended
}

func (r *Reduced) timeout() {
	over := false
	r.note(func(o *observation) { o.timeout, over = !o.exited, o.exited })
	if over {
		return
	}
	_ = r.signal(unix.SIGTERM, false) // ESRCH: it has just ended
	_ = r.signal(unix.SIGCONT, false) // a stopped one would sit its grace out
	time.AfterFunc(time.Duration(r.req.GraceMS)*time.Millisecond, func() { _ = r.signal(unix.SIGKILL, true) })
}

// Kill sends a signal to the command, or with all ends everything.
func (r *Reduced) Kill(sig syscall.Signal, all bool) error {
	if all {
		r.end(func(o *observation) { o.cancelled = true })
		return nil
	}
	r.note(func(o *observation) { o.callerSignal = sig })
	if err := r.signal(sig, false); err != nil && err != unix.ESRCH {
		return fault.Wrap(fault.SystemCall, "signal the command", err)
	}
	return nil
}

// Wait gives the response when the command has ended. It is never nil.
func (r *Reduced) Wait() *spec.Response {
	<-r.done
	return r.answer
}

func (r *Reduced) wait() {
	pid := r.cmd.Process.Pid
	state, err := r.cmd.Process.Wait()
	ended := time.Now()
	r.mu.Lock()
	r.reaped = true
	// The group's number is not given away while it has members; when it has none this
	// is ESRCH.
	_ = unix.Kill(-pid, unix.SIGKILL)
	switch status, ok := state.Sys().(syscall.WaitStatus); {
	case err != nil || !ok:
		r.seen.failure = fault.Wrap(fault.MonitorFailed, "wait for the command", err)
	case r.seen.failure == nil:
		r.seen.exited, r.seen.status, r.seen.wall = true, status, ended.Sub(r.started)
		r.seen.timeout = r.seen.timeout && r.seen.wall >= time.Duration(r.req.TimeoutMS)*time.Millisecond
		r.usage, _ = state.SysUsage().(*syscall.Rusage)
	}
	r.mu.Unlock()
	for _, s := range r.streams {
		s.Drain(output.DefaultQuiet, output.DefaultMax)
		s.Finish()
	}
	r.follow.Wait()
	r.respond(ended)
}

func (r *Reduced) respond(ended time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.seen
	if u := r.usage; u != nil {
		user, kernel := time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
		all := user + kernel
		o.stats.User, o.stats.Kernel, o.stats.CPU, o.stats.MemoryPeak = &user, &kernel, &all, ptr(u.Maxrss*maxrssUnit)
	}
	v := judge(r.req, o)
	a := &spec.Response{ExecutionID: r.o.ID, Metrics: metricsOf(o, false)}
	a.Timestamps.Created = r.created.UTC()
	if o.failure == nil {
		a.Timestamps.Started, a.Timestamps.Completed = ptr(r.started.UTC()), ptr(ended.UTC())
		a.Enforcement = process.Enforcement(r.req)
		a.Warnings = []string{process.Warning, process.PeakWarning}
		v = r.addOutput(a, v)
	}
	a.Status, a.Termination.Reason, a.ExitCode, a.Signal, a.Error = v.status, v.reason, v.exitCode, v.signal, v.err
	for _, s := range r.streams {
		if err := s.Close(); err != nil {
			a.Warnings = append(a.Warnings, "output could not be closed: "+err.Error())
		}
	}
	if err := os.RemoveAll(r.dir); err != nil {
		a.Warnings = append(a.Warnings, "the home directory could not be removed: "+err.Error())
	}
	r.answer = a
}

// addOutput is as for an execution in a sandbox: a success without its output is none.
func (r *Reduced) addOutput(a *spec.Response, v verdict) verdict {
	a.Output = &spec.Output{Stdout: r.streams[0].Counts(), Stderr: r.streams[1].Counts()}
	stdout, err1 := r.streams[0].Bytes()
	stderr, err2 := r.streams[1].Bytes()
	tail := r.req.Resources.OutputPolicy == spec.OutputTail
	a.SetOutput(spec.WholeRunes(stdout, &a.Output.Stdout, tail), spec.WholeRunes(stderr, &a.Output.Stderr, tail))
	if err := errors.Join(err1, err2); err != nil && v.status == spec.StatusSuccess {
		v.status, v.err = spec.StatusError, spec.ErrorFrom(fault.From(err, fault.OutputCapture))
	}
	return v
}
