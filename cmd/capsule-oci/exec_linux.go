package main

import (
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/spec/fault"
)

// words collects a flag that may be given several times.
type words []string

// String is for the flag package.
func (w *words) String() string { return strings.Join(*w, ",") }

// Set is for the flag package.
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

// executing are the flags of exec.
type executing struct {
	container.Stdio
	process, cwd, user    string
	env, caps, groups     words
	tty, detach, noNewPri bool
}

func (p *program) exec(args []string) error {
	f := flags("exec")
	var o executing
	both(f.StringVar, &o.process, "process", "p", "", "file with the process object")
	f.StringVar(&o.cwd, "cwd", "", "working directory")
	both(f.StringVar, &o.user, "user", "u", "", "UID[:GID]")
	f.Var(&o.env, "env", "variable K=V")
	f.Var(&o.env, "e", "variable K=V")
	f.Var(&o.caps, "cap", "capability to add")
	f.Var(&o.caps, "c", "capability to add")
	f.Var(&o.groups, "additional-gids", "group to add")
	f.Var(&o.groups, "g", "group to add")
	both(f.BoolVar, &o.tty, "tty", "t", false, "with a terminal")
	both(f.BoolVar, &o.detach, "detach", "d", false, "do not wait for the end")
	f.BoolVar(&o.noNewPri, "no-new-privs", false, "forbid new privileges")
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "socket that gets the terminal")
	f.StringVar(&o.PidFile, "pid-file", "", "file that gets the number of the process")
	f.IntVar(&o.Preserve, "preserve-fds", 0, "descriptors from 3 on that are handed on")
	rest, err := parse(f, args, 1, -1)
	if err != nil {
		return err
	}
	if err := ready(&o.Stdio); err != nil {
		return err
	}
	c, err := p.rt.Peek(rest[0])
	if err != nil {
		return err
	}
	process, err := o.object(c, rest[1:])
	if err != nil {
		return err
	}
	var screen *screen
	if o.ConsoleSocket == "" && !o.detach {
		o.Terminal = func(master *os.File) error { screen = show(master); return nil }
	}
	started, err := p.rt.Exec(rest[0], process, o.Stdio)
	if err != nil {
		return err
	}
	if o.detach {
		started.Leave()
		return nil
	}
	status, err := attend(started.Pid)
	started.Leave()
	screen.close()
	if err != nil {
		return err
	}
	return outcome(status)
}

// object is the process to execute: a file, or the container's own process with what the
// flags say.
func (o *executing) object(c *container.Container, command []string) (*specs.Process, error) {
	if o.process != "" {
		text, err := os.ReadFile(o.process)
		if err != nil {
			return nil, fault.Wrap(fault.InvalidBundle, "read process", err).WithPath(o.process).WithField("process")
		}
		process, err := specjson.ReadProcess(text)
		if err != nil {
			return nil, fault.From(err, fault.InvalidBundle).WithPath(o.process)
		}
		if o.tty {
			process.Terminal = true
		}
		return process, nil
	}
	if len(command) == 0 {
		return nil, fault.New(fault.MissingField, "exec", "there is no command").WithField("process.args")
	}
	process := new(specs.Process)
	if c.Config.Process != nil {
		*process = *c.Config.Process
	}
	process.Args, process.Terminal = command, o.tty
	process.Env = append(process.Env[:len(process.Env):len(process.Env)], o.env...)
	process.NoNewPrivileges = process.NoNewPrivileges || o.noNewPri
	if o.cwd != "" {
		process.Cwd = o.cwd
	}
	if err := o.identity(process); err != nil {
		return nil, err
	}
	if len(o.caps) > 0 {
		caps := specs.LinuxCapabilities{}
		if process.Capabilities != nil {
			caps = *process.Capabilities
		}
		for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
			*set = append((*set)[:len(*set):len(*set)], o.caps...)
		}
		process.Capabilities = &caps
	}
	return process, nil
}

// identity reads --user and --additional-gids.
func (o *executing) identity(process *specs.Process) error {
	number := func(text, field string) (uint32, error) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0, fault.New(fault.InvalidValue, "exec", strconv.Quote(text)+" is no number").WithField(field)
		}
		return uint32(n), nil
	}
	var err error
	if o.user != "" {
		uid, gid, both := strings.Cut(o.user, ":")
		if process.User.UID, err = number(uid, "user"); err != nil {
			return err
		}
		if both {
			if process.User.GID, err = number(gid, "user"); err != nil {
				return err
			}
		}
	}
	for _, g := range o.groups {
		gid, err := number(g, "additional-gids")
		if err != nil {
			return err
		}
		process.User.AdditionalGids = append(process.User.AdditionalGids, gid)
	}
	return nil
}
