package main

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/spec/fault"
)

// building are the flags of create and run.
type building struct {
	bundle string
	container.Stdio
}

func (b *building) define(f *flag.FlagSet) {
	both(f.StringVar, &b.bundle, "bundle", "b", ".", "directory with config.json")
	f.StringVar(&b.ConsoleSocket, "console-socket", "", "socket that gets the terminal")
	f.StringVar(&b.PidFile, "pid-file", "", "file that gets the number of the process")
	f.IntVar(&b.Preserve, "preserve-fds", 0, "descriptors from 3 on that are handed on")
	f.Bool("no-pivot", false, "ignored: there is always a pivot_root")
	f.Bool("no-new-keyring", false, "ignored: there is always a new keyring")
}

// ready makes this process one of which nothing leads to the host: see seal. Descriptors
// that are handed on reach the container alone, and neither hooks nor helpers.
func ready(o *container.Stdio) error {
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > 0 && o.Preserve == 0 {
		o.Preserve = n
	}
	if o.Preserve < 0 || o.Preserve > 256 {
		return fault.New(fault.OutOfRange, "read flags", "is not between 0 and 256").WithField("preserve-fds")
	}
	if err := hidden(); err != nil {
		return err
	}
	return private()
}

// hidden makes this process one whose clones give nothing away in a container.
func hidden() error {
	if err := seal(); err != nil {
		return err
	}
	// A process of a container is born as our clone, and in its namespaces: who is there
	// already must not look at it, nor at what it has open (CVE-2016-9962).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fault.Wrap(fault.SystemCall, "prctl", err)
	}
	return unsaid()
}

// unsaid leaves the caller's words and environment out of the memory of our clones. Everybody
// in a container may read the words of a process there, and who has CAP_SYS_PTRACE the
// environment, until the command is executed: the caller's may hold passwords, of a proxy for
// instance.
func unsaid() error {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return fault.Wrap(fault.IO, "find the arguments", err)
	}
	// proc_pid_stat(5): the third field follows the name; arg_start is the 48th, env_end the 51st.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 49 {
		return fault.New(fault.IO, "find the arguments", "/proc/self/stat lacks them")
	}
	start, bad := strconv.ParseUint(fields[45], 10, 64)
	end, err := strconv.ParseUint(fields[48], 10, 64)
	if err = errors.Join(bad, err); err != nil {
		return fault.Wrap(fault.IO, "find the arguments", err)
	}
	page := uint64(os.Getpagesize())
	start, end = start&^(page-1), (end+page-1)&^(page-1)
	if _, _, errno := unix.RawSyscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTFORK); errno != 0 {
		return fault.Wrap(fault.SystemCall, "madvise", errno)
	}
	return nil
}

// private keeps what the caller has open from hooks and helpers.
func private() error {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fault.Wrap(fault.SystemCall, "close_range", err)
	}
	return nil
}

func (p *program) create(args []string) error {
	f := flags("create")
	var b building
	b.define(f)
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if err := ready(&b.Stdio); err != nil {
		return err
	}
	return p.rt.Create(rest[0], b.bundle, b.Stdio)
}

func (p *program) start(args []string) error {
	rest, err := parse(flags("start"), args, 1, 1)
	if err != nil {
		return err
	}
	c, err := p.rt.Peek(rest[0])
	if err != nil {
		return err
	}
	if c.Config.Hooks != nil && len(c.Config.Hooks.StartContainer) > 0 {
		if err := hidden(); err != nil { // the hooks are processes in the container
			return err
		}
	}
	return p.rt.Start(rest[0])
}

// run creates and starts, and without --detach waits for the end.
func (p *program) run(args []string) error {
	f := flags("run")
	var b building
	var detach bool
	b.define(f)
	both(f.BoolVar, &detach, "detach", "d", false, "do not wait for the end")
	keep := f.Bool("keep", false, "do not delete it at its end")
	f.Bool("no-subreaper", false, "ignored: there is none")
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if err := ready(&b.Stdio); err != nil {
		return err
	}
	id := rest[0]
	var screen *screen
	if b.ConsoleSocket == "" && !detach {
		b.Terminal = func(master *os.File) error { screen = show(master); return nil }
	}
	if err := p.rt.Create(id, b.bundle, b.Stdio); err != nil {
		return err
	}
	pid, err := p.rt.Pid(id)
	if err == nil {
		err = p.rt.Start(id)
	}
	if err != nil {
		screen.close()
		return joined(err, p.rt.Delete(id, true))
	}
	if detach {
		return nil
	}
	status, err := attend(pid)
	screen.close()
	if !*keep {
		err = joined(err, p.rt.Delete(id, true))
	}
	if err != nil {
		return err
	}
	return outcome(status)
}

// attend waits for a child and hands signals on to it.
func attend(pid int) (unix.WaitStatus, error) {
	signals := make(chan os.Signal, 32)
	signal.Notify(signals)
	handed := make(chan struct{})
	go func() {
		defer close(handed)
		for s := range signals {
			sig, ok := s.(syscall.Signal)
			if !ok || sig == unix.SIGCHLD || sig == unix.SIGURG || sig == unix.SIGWINCH || sig == unix.SIGPIPE {
				continue // the Go runtime's own, and those about this process
			}
			_ = unix.Kill(pid, sig) // our child, which keeps its number until it is waited for
		}
	}()
	err := retried(func() error { return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil) })
	signal.Stop(signals)
	close(signals) // nobody sends any more
	<-handed
	var status unix.WaitStatus
	if err == nil {
		err = retried(func() error { _, err := unix.Wait4(pid, &status, unix.WALL, nil); return err })
	}
	if err != nil {
		return 0, fault.Wrap(fault.MonitorFailed, "wait for the container", err)
	}
	return status, nil
}

// retried calls until no signal cuts it short.
func retried(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// outcome is what a shell would say of a wait status.
func outcome(s unix.WaitStatus) error {
	switch {
	case s.Signaled():
		return exitStatus(128 + int(s.Signal()))
	case s.ExitStatus() != 0:
		return exitStatus(s.ExitStatus())
	}
	return nil
}

func (p *program) state(args []string) error {
	rest, err := parse(flags("state"), args, 1, 1)
	if err != nil {
		return err
	}
	c, err := p.rt.Peek(rest[0])
	if err != nil {
		return err
	}
	return document(c.State())
}

// document writes a document as every runtime does.
func document(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fault.Wrap(fault.IO, "write", err)
	}
	return nil
}

func (p *program) kill(args []string) error {
	f := flags("kill")
	var all bool
	both(f.BoolVar, &all, "all", "a", false, "all processes of the container")
	rest, err := parse(f, args, 1, 2)
	if err != nil {
		return err
	}
	name := "TERM"
	if len(rest) == 2 {
		name = rest[1]
	}
	sig, err := signalOf(name)
	if err != nil {
		return err
	}
	return p.rt.Kill(rest[0], sig, all)
}

// signalOf reads a signal by its name, with or without SIG, or its number.
func signalOf(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if offset, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok {
		if n, err := strconv.Atoi(offset); err == nil && n >= 0 && n <= 30 {
			return unix.Signal(34 + n), nil
		}
	}
	return 0, fault.New(fault.InvalidValue, "kill", strconv.Quote(text)+" is no signal").WithField("signal")
}

func (p *program) delete(args []string) error {
	f := flags("delete")
	var force bool
	both(f.BoolVar, &force, "force", "f", false, "kill it first")
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	return p.rt.Delete(rest[0], force)
}

func (p *program) pause(args []string) error {
	rest, err := parse(flags("pause"), args, 1, 1)
	if err != nil {
		return err
	}
	return p.rt.Pause(rest[0], true)
}

func (p *program) resume(args []string) error {
	rest, err := parse(flags("resume"), args, 1, 1)
	if err != nil {
		return err
	}
	return p.rt.Pause(rest[0], false)
}
