package task

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container/resources"
	"github.com/capsule-run/capsule/runtime/task/terms"
	"github.com/capsule-run/capsule/spec/fault"
)

// MessageMax is what a kubelet reads of a termination message, in bytes.
const MessageMax = 4096

// Outcome is what this process saw of a command that a verdict is asked on: from outside
// of its container, by the kernel's own accounts.
type Outcome struct {
	terms.Terms
	// Config is the configuration that held.
	Config *specs.Spec
	// Err is why it was not started. Then the fields after Created are zero.
	Err                     error
	Created, Started, Ended time.Time
	// Status is the command's, with Exited. Without, nobody knows it.
	Status unix.WaitStatus
	Exited bool
	// What ended it.
	TimedOut, CPUTime, TooMuchOutput bool
	// Signal is the last that containerd sent. 0: none.
	Signal unix.Signal
	// Usage is what the control group counted. Nil: there are no accounts, and
	// UsageErr may tell why.
	Usage    *resources.Usage
	UsageErr error
	// Walls are what the kernel confirmed. WallsErr: why it was not asked for all.
	Walls    Walls
	WallsErr error
	// Stdout and Stderr are complete: every process has ended.
	Stdout, Stderr Captured
}

// verdict follows the first process of one container, from its creation on.
type verdict struct {
	terms.Terms
	s    *Service
	task *task
	// message is the host's file for the termination message. Empty: there is none.
	message string
	config  *specs.Spec
	walls   walls
	created time.Time
	outputs [2]*capture
	pipes   [2]*os.File // the reading ends of what outputs capture
	readers sync.WaitGroup
	log     *os.File // where the document goes: the container's stdout. Nil: it has none

	mu      sync.Mutex
	started time.Time
	over    bool // the process has ended, or was killed for a reason that is noted
	out     Outcome
	timers  []*time.Timer
	tooMuch bool // before it was started
}

// judged reads whether a verdict is asked on a container, and changes its configuration
// accordingly. Nil: none is.
func (s *Service) judged(t *task, config *specs.Spec) (*verdict, error) {
	if s.Judge == nil {
		return nil, nil
	}
	asked, err := terms.Of(config)
	if asked == nil {
		return nil, err
	}
	v := &verdict{Terms: *asked, s: s, task: t, config: config, walls: walls{config: config}, created: time.Now()}
	v.message = messageFile(config.Mounts, asked.Message)
	if err == nil {
		err = amend(asked, config)
	}
	if err != nil {
		v.refuse(err)
		return nil, err
	}
	tail := asked.OutputPolicy == "tail"
	for i := range v.outputs {
		v.outputs[i] = &capture{limit: int(asked.MaxOutputBytes), tail: tail}
		if asked.OutputPolicy == "kill" {
			v.outputs[i].over = v.onOutput
		}
	}
	return v, nil
}

// divert makes pipes of the streams that were opened for the container: it writes into
// memory of ours, and its stdout remains for the verdict.
func (v *verdict) divert(s *streams) error {
	v.log = s.give[1]
	if s.give[2] != nil {
		s.give[2].Close() // nothing is written there
	}
	s.give[1], s.give[2] = nil, nil
	for i, c := range v.outputs {
		r, w, err := os.Pipe()
		if err != nil {
			return fault.Wrap(fault.OutputCapture, "pipe", err)
		}
		s.give[i+1], v.pipes[i] = w, r
		v.readers.Go(func() { c.read(r) })
	}
	if s.give[0] != nil {
		s.give[0].Close()
		s.give[0] = nil // /dev/null
	}
	if len(v.Stdin) == 0 {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Wrap(fault.OutputCapture, "pipe", err)
	}
	s.give[0] = r
	go func() {
		_, _ = w.Write(v.Stdin) // EPIPE: the command does not read it
		w.Close()
	}()
	return nil
}

// begin is called when the command runs, since no earlier than at.
func (v *verdict) begin(at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.started = at
	if v.over {
		return
	}
	v.timers = append(v.timers, time.AfterFunc(v.Timeout(), v.onTimeout))
	if v.CPUTimeMS > 0 {
		v.timers = append(v.timers, time.AfterFunc(v.cpuPause(0), v.watchCPU))
	}
	if v.tooMuch {
		go v.onOutput()
	}
}

// strike notes why the command is ended, unless it has ended already.
func (v *verdict) strike(why *bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return false
	}
	*why, v.over = true, true
	return true
}

func (v *verdict) onTimeout() {
	if !v.strike(&v.out.TimedOut) {
		return
	}
	v.kill(unix.SIGTERM, false)
	v.kill(unix.SIGCONT, false) // a stopped process would sit out its grace
	v.mu.Lock()
	defer v.mu.Unlock()
	v.timers = append(v.timers, time.AfterFunc(v.Grace(), func() { v.kill(killSignal, true) }))
}

func (v *verdict) onOutput() {
	v.mu.Lock()
	waiting := v.started.IsZero()
	v.tooMuch = waiting
	v.mu.Unlock()
	if !waiting && v.strike(&v.out.TooMuchOutput) {
		v.kill(killSignal, true)
	}
}

// cpuPause is how long the limit of CPU time can hold at least.
func (v *verdict) cpuPause(used time.Duration) time.Duration {
	const least = 10 * time.Millisecond
	return max(least, (time.Duration(v.CPUTimeMS)*time.Millisecond-used)/time.Duration(runtime.NumCPU()))
}

func (v *verdict) watchCPU() {
	u, err := v.task.rt.Usage(v.task.id)
	if err != nil || u == nil {
		v.mu.Lock()
		v.out.UsageErr = errors.Join(v.out.UsageErr, err)
		v.mu.Unlock()
		return
	}
	used := time.Duration(u.CPU)
	if used >= time.Duration(v.CPUTimeMS)*time.Millisecond {
		if v.strike(&v.out.CPUTime) {
			v.kill(killSignal, true)
		}
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.over {
		v.timers = append(v.timers[:1], time.AfterFunc(v.cpuPause(used), v.watchCPU))
	}
}

// told is called with a signal of containerd's.
func (v *verdict) told(sig unix.Signal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.over {
		v.out.Signal = sig
	}
}

func (v *verdict) kill(sig unix.Signal, all bool) {
	if err := v.task.rt.Kill(v.task.id, sig, all); err != nil && !errors.Is(err, &fault.Fault{Code: fault.NotFound}) && !v.task.first.done() {
		v.s.Log(err)
	}
}

// finish is called once every process has ended, and before anybody is told: it writes
// the verdict down.
func (v *verdict) finish(p *process) {
	v.mu.Lock()
	v.over = true
	for _, t := range v.timers {
		t.Stop()
	}
	o := v.out
	started := v.started
	v.mu.Unlock()
	if started.IsZero() {
		v.refuse(fault.New(fault.Cancelled, "start the command", "the container was taken away before"))
		return
	}
	v.drain()
	o.Terms, o.Config, o.Created, o.Started = v.Terms, v.config, v.created, started
	o.Status, o.Exited, o.Ended = p.waitStatus()
	u, err := v.task.rt.Usage(v.task.id)
	o.Walls, o.WallsErr = v.walls.result()
	o.Usage, o.UsageErr = u, errors.Join(o.UsageErr, err)
	o.Stdout, o.Stderr = v.outputs[0].result(), v.outputs[1].result()
	v.write(&o, p.streams)
}

// drain waits for what is still in the pipes. A process may have given its end of one to
// another container, or to one of the host's: nobody waits for those.
func (v *verdict) drain() {
	for _, r := range v.pipes {
		_ = r.SetReadDeadline(time.Now().Add(draining)) // it fails where the reader has closed it: at the end
	}
	v.readers.Wait()
}

// refuse writes down why the command was not started.
func (v *verdict) refuse(err error) {
	v.write(&Outcome{Terms: v.Terms, Config: v.config, Created: v.created, Err: err}, nil)
}

// write puts the verdict where it is looked for: without the output as the termination
// message, and whole into the log, which may be read late.
func (v *verdict) write(o *Outcome, s *streams) {
	document, message := v.s.Judge(o)
	if v.message != "" {
		if err := writeMessage(v.message, message); err != nil {
			v.s.Log(err)
		}
	}
	if v.log == nil || s == nil {
		return
	}
	log := v.log
	s.copies.Go(func() {
		if _, err := log.Write(document); err != nil {
			v.s.Log(fault.Wrap(fault.OutputCapture, "write verdict", err))
		}
		log.Close()
	})
}

// messageFile is the host's file behind a path of the container's. A mount that the container
// may not write to is none of its termination message. Empty: there is none.
func messageFile(mounts []specs.Mount, path string) (source string) {
	for _, m := range mounts {
		if m.Destination == path && m.Type == "bind" {
			source = m.Source
			if slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro") {
				source = ""
			}
		}
	}
	return source
}

// writeMessage replaces what the container has left in its file: no process of it is
// there to write any more. Which file that is the pod's author says, and this is root of the
// node: so it has to be one that anybody may write to, as a kubelet makes it. containerd has
// resolved links in the path already. Where there is one now, the container has put it there.
func writeMessage(path string, text []byte) error {
	fail := func(op string, err error) error {
		return fault.Wrap(fault.IO, op, err).WithPath(path).WithField("annotations." + terms.Annotation + ".message")
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return fail("open", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	const anybody = 0o002
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Mode()&anybody == 0 {
		return fail("open", errors.Join(err, errors.New("is not a file that anybody may write to")))
	}
	if err := f.Truncate(0); err != nil {
		return fail("truncate", err)
	}
	if _, err := f.Write(text); err != nil {
		return fail("write", err)
	}
	return nil
}
