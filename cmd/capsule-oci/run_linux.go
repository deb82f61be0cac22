package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/runtime/container/scope/ask"
	"github.com/capsule-run/capsule/runtime/container/scope/systemd"
	"github.com/capsule-run/capsule/spec/fault"
)

// program is one call.
type program struct {
	rt        *container.Runtime
	log       string
	logFormat string
}

// verb is a command: it gets what follows its name.
type verb struct {
	usage string
	call  func(*program, []string) error
}

func verbs() map[string]verb {
	return map[string]verb{
		"create":   {"[--bundle DIR] [--console-socket PATH] [--pid-file PATH] [--preserve-fds N] ID", (*program).create},
		"run":      {"[--bundle DIR] [--detach] [--keep] [--console-socket PATH] [--pid-file PATH] [--preserve-fds N] ID", (*program).run},
		"start":    {"ID", (*program).start},
		"state":    {"ID", (*program).state},
		"kill":     {"[--all] ID [SIGNAL]", (*program).kill},
		"delete":   {"[--force] ID", (*program).delete},
		"exec":     {"[--process FILE | --cwd DIR --env K=V --user UID[:GID] --tty] [--detach] [--pid-file PATH] [--console-socket PATH] ID [COMMAND ARG...]", (*program).exec},
		"ps":       {"[--format table|json] ID [PS-OPTION...]", (*program).ps},
		"list":     {"[--format table|json] [--quiet]", (*program).list},
		"events":   {"[--stats] [--interval DURATION] ID", (*program).events},
		"pause":    {"ID", (*program).pause},
		"resume":   {"ID", (*program).resume},
		"update":   {"[--resources FILE | --memory N --memory-swap N --memory-reservation N --cpu-shares N --cpu-quota N --cpu-period N --cpuset-cpus LIST --cpuset-mems LIST --pids-limit N] ID", (*program).update},
		"spec":     {"[--bundle DIR]", (*program).spec},
		"features": {"", (*program).features},
		// For containerd-shim-capsule-v2, and in no list.
		ask.Verb: {"", func(*program, []string) error {
			return ask.Serve(context.Background(), os.Stdin, os.Stdout, systemd.Manager{})
		}},
	}
}

// run carries one call out. What is wrong is told before it returns.
func run(args []string) error {
	// The container's process is the child of this thread, which enters namespaces for it.
	runtime.LockOSThread()
	scope.Use(systemd.Manager{})
	p := &program{rt: &container.Runtime{}}
	p.rt.Warn = func(err error) { p.tell("warning", err) }
	err := p.main(args)
	var status exitStatus
	if err != nil && !errors.As(err, &status) {
		var f *fault.Fault
		if errors.As(err, &f) && f.Field != "" && !strings.Contains(err.Error(), f.Field) {
			err = fmt.Errorf("%s: %w", f.Field, err)
		}
		p.tell("error", err)
		fmt.Fprintln(os.Stderr, "capsule-oci: "+err.Error())
		if errors.As(err, &f) && f.Remedy() != "" {
			fmt.Fprintln(os.Stderr, f.Remedy())
		}
	}
	return err
}

func (p *program) main(args []string) error {
	f := flag.NewFlagSet("capsule-oci", flag.ContinueOnError)
	f.SetOutput(os.Stderr)
	f.StringVar(&p.rt.Root, "root", defaultRoot(), "directory of the state")
	f.StringVar(&p.log, "log", "", "file that errors are appended to")
	f.StringVar(&p.logFormat, "log-format", "text", "text or json")
	f.BoolVar(&p.rt.Debug, "debug", false, "tell more")
	f.BoolVar(&p.rt.Systemd, "systemd-cgroup", false, "make control groups as scopes of systemd")
	manager := f.String("cgroup-manager", "", "cgroupfs or systemd")
	f.String("criu", "", "ignored: there are no checkpoints")
	f.String("rootless", "auto", "auto or false")
	show := f.Bool("version", false, "show the version")
	f.BoolVar(show, "v", false, "show the version")
	f.Usage = usage
	if err := f.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return exitStatus(0)
	} else if err != nil {
		return fault.Wrap(fault.InvalidValue, "read flags", err)
	}
	if *show {
		fmt.Printf("capsule-oci version %s\ncommit: %s\nspec: %s\n", version, commit, specs.Version)
		return nil
	}
	if p.logFormat != "text" && p.logFormat != "json" {
		return fault.New(fault.InvalidValue, "read flags", "is neither text nor json").WithField("log-format")
	}
	switch *manager {
	case "systemd":
		p.rt.Systemd = true
	case "", "cgroupfs":
	default:
		return fault.New(fault.InvalidValue, "read flags", "is neither cgroupfs nor systemd").WithField("cgroup-manager")
	}
	name := f.Arg(0)
	v, ok := verbs()[name]
	if !ok {
		usage()
		return fault.New(fault.InvalidValue, "read command", fmt.Sprintf("%q is no command", name))
	}
	root, err := filepath.Abs(p.rt.Root)
	if err != nil {
		return fault.Wrap(fault.InvalidValue, "read flags", err).WithField("root")
	}
	p.rt.Root = root
	if p.rt.SeccompHelper, err = helper(args[0]); err != nil {
		return err
	}
	switch name {
	case "create", "run", "exec": // which hand descriptors on: see ready
	default:
		if err := private(); err != nil {
			return err
		}
	}
	return v.call(p, f.Args()[1:])
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: capsule-oci [--root DIR] [--log FILE] [--log-format text|json] [--debug] [--systemd-cgroup] [--version] COMMAND")
	for _, name := range strings.Fields("create start run state kill delete exec ps list events pause resume update spec features") {
		fmt.Fprintln(os.Stderr, "  "+name+" "+verbs()[name].usage)
	}
}

// defaultRoot is where state is kept without --root.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && (os.Geteuid() != 0 || container.Nested()) {
		return filepath.Join(dir, "capsule-oci")
	}
	return "/run/capsule-oci"
}

// helper is capsule-seccomp beside this program. A copy in memory is called by the
// name of the file that it was made of.
func helper(name string) (string, error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", fault.Wrap(fault.IO, "find the program", err)
	}
	if sealed() {
		self = name
	}
	return filepath.Join(filepath.Dir(self), "capsule-seccomp"), nil
}

// tell writes a line to the log, where there is one.
func (p *program) tell(level string, err error) {
	if p.log == "" {
		if level == "warning" {
			fmt.Fprintln(os.Stderr, "capsule-oci: warning: "+err.Error())
		}
		return
	}
	f, bad := os.OpenFile(p.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if bad != nil {
		fmt.Fprintln(os.Stderr, "capsule-oci: "+bad.Error())
		return
	}
	defer f.Close()
	now := time.Now().UTC().Format(time.RFC3339Nano)
	if p.logFormat == "json" {
		line, _ := json.Marshal(map[string]string{"level": level, "msg": err.Error(), "time": now}) // strings always encode
		_, _ = f.Write(append(line, '\n'))                                                          // nobody else is left to tell
		return
	}
	fmt.Fprintf(f, "time=%q level=%s msg=%q\n", now, level, err.Error())
}

// parse reads a verb's flags and its arguments, of which it wants at least so many.
func parse(f *flag.FlagSet, args []string, least, most int) ([]string, error) {
	f.SetOutput(os.Stderr)
	f.Usage = func() { fmt.Fprintln(os.Stderr, "usage: capsule-oci "+f.Name()+" "+verbs()[f.Name()].usage) }
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil, exitStatus(0)
	} else if err != nil {
		return nil, fault.Wrap(fault.InvalidValue, f.Name(), err)
	}
	rest := f.Args()
	if len(rest) < least || most >= 0 && len(rest) > most {
		return nil, fault.New(fault.MissingField, f.Name(), "usage: capsule-oci "+f.Name()+" "+verbs()[f.Name()].usage).WithField("id")
	}
	return rest, nil
}

func flags(name string) *flag.FlagSet { return flag.NewFlagSet(name, flag.ContinueOnError) }

// both defines a flag by its long and its short name.
func both[T any](define func(*T, string, T, string), to *T, long, short string, value T, help string) {
	define(to, long, value, help)
	define(to, short, value, help)
}
