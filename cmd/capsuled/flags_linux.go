package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/config"
	"github.com/capsule-run/capsule/supervisor/history"
)

// Bounds and names of flags; config.Default has their standard values.
const (
	shortestSweep   = 100 * time.Millisecond
	budgetPercent   = 80
	noGroup         = -1
	unixMetrics     = "unix:"
	localhost       = "localhost"
	variableAddress = "CAPSULE_ADDRESS"
)

// options are the parsed flags.
type options struct {
	address, state string
	given          string // address as flags and configuration have it
	format         string
	level          slog.Level
	interval       time.Duration
	admission      admission.Limits
	// hostBudget: the memory budget follows the memory of the host.
	hostBudget bool
	history    history.Limits
	pool       supervisor.PoolLimits
	// gid is the group that may use the socket, or noGroup.
	gid     int
	metrics string
	audit   string
	drain   bool
	version bool

	// file is --config, and args all flags: both are read again on SIGHUP.
	file   string
	args   []string
	config *config.Config
}

// parse reads the flags. What is wrong with them is told on stderr, help too.
func parse(args []string, stderr io.Writer) (options, error) {
	o, f, err := read(args, options{gid: noGroup, args: args})
	if err == nil && f.NArg() == 0 && !o.version {
		err = o.configure() // and the flags once more, over the configuration
		if err == nil {
			o, f, err = read(args, o)
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		help(f, stderr)
		return o, err
	case err == nil && f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: every setting is a flag", f.Arg(0))
	case err == nil && !o.version:
		err = o.complete()
	}
	if err != nil {
		fmt.Fprintf(stderr, "capsuled: %s\nRun capsuled --help for the flags.\n", explained(err))
	}
	return o, err
}

// read reads the flags over o.
func read(args []string, o options) (options, *flag.FlagSet, error) {
	f := flag.NewFlagSet("capsuled", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the flag package would follow every error with all of the help
	o.define(f)
	err := f.Parse(args)
	return o, f, err
}

// define declares the flags.
func (o *options) define(f *flag.FlagSet) {
	f.StringVar(&o.file, "config", o.file, "configuration `FILE` (default $CAPSULE_CONFIG, else $XDG_CONFIG_HOME/capsule/config.toml, else /etc/capsule); flags win over it")
	f.StringVar(&o.address, "address", o.address, "`SOCKET` to serve, a path (default $CAPSULE_ADDRESS, else capsuled.sock in the state directory)")
	f.StringVar(&o.state, "state", o.state, "state `DIRECTORY` (default $CAPSULE_STATE, else /run/capsule as root, else $XDG_RUNTIME_DIR/capsule)")
	f.Func("log-format", "`FORMAT` of the log on stderr: text or json (default text)", func(s string) error {
		o.format = s
		return choice(s, "text", "json")
	})
	f.Func("log-level", "`LEVEL` of the log: debug, info, warn or error (default info)", func(s string) error {
		if err := choice(s, "debug", "info", "warn", "error"); err != nil {
			return err
		}
		return o.level.UnmarshalText([]byte(s))
	})
	f.Func("max-concurrent", "run at most `N` executions at a time, 0: any number (default 0)", number(&o.admission.MaxConcurrent))
	f.Func("max-queued", "let at most `N` executions wait for their turn, 0: none (default 256)", number(&o.admission.MaxQueued))
	f.Func("memory-budget", "sum of the memory limits of those that run, in `BYTES` or as 8G, 0: any (default 80 % of the host's memory)",
		func(s string) error {
			o.hostBudget = false
			return size(&o.admission.MemoryBudget)(s)
		})
	f.Func("history-age", "keep ended executions for this `TIME`: 12h, 30d, 0: any (default 30d)", age(&o.history.Age))
	f.Func("history-count", "keep at most `N` ended executions, 0: any number (default 10000)", number(&o.history.Count))
	f.Func("history-bytes", "keep at most `BYTES` of ended executions, 0: any (default 1GiB)", size(&o.history.Bytes))
	f.Func("history-output-bytes", "keep at most `BYTES` of their output, dropping the oldest first, 0: any (default 512MiB)", size(&o.history.OutputBytes))
	f.Func("group", "let the group `NAME` (or number) use the socket, which then has mode 0660 instead of 0600", o.setGroup)
	f.Func("metrics", "serve Prometheus metrics at `ADDRESS`, unix:PATH or a loopback HOST:PORT (default none)", o.setMetrics)
	f.StringVar(&o.audit, "audit-log", o.audit, "append one JSON line for each admission decision and each end to `PATH` (default none)")
	f.Func("sweep-interval", "`TIME` between two looks for what dead shims left, at least 100ms (default 10s)", func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < shortestSweep {
			return errors.New("give a time of at least 100ms, such as 10s")
		}
		o.interval = d
		return nil
	})
	f.BoolVar(&o.drain, "drain", false, "let the running capsuled refuse new executions and end after those that run; wait for its end")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
}

// complete fills in what depends on the environment and on other flags.
func (o *options) complete() error {
	state, err := layout.Find(o.state)
	if err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	o.state, o.given = string(state), o.address
	if o.address == "" {
		o.address = os.Getenv(variableAddress)
	}
	if o.address == "" {
		o.address = state.Socket()
	}
	if o.address, err = filepath.Abs(o.address); err != nil {
		return fmt.Errorf("--address: %w", err)
	}
	if o.gid != noGroup && strings.HasPrefix(o.address, o.state+"/") {
		return fmt.Errorf("--group: only the owner can enter the state directory %s; give --address outside of it, such as /run/capsuled.sock", o.state)
	}
	if o.audit != "" {
		if o.audit, err = filepath.Abs(o.audit); err != nil {
			return fmt.Errorf("--audit-log: %w", err)
		}
	}
	if o.hostBudget {
		o.admission.MemoryBudget = hostBudget()
	}
	return nil
}

func choice(s string, allowed ...string) error {
	for _, a := range allowed {
		if s == a {
			return nil
		}
	}
	return errors.New("choose one of " + strings.Join(allowed, ", "))
}

func number(to *int) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || n < 0 {
			return errors.New("give a number from 0 to 2147483647")
		}
		*to = int(n)
		return nil
	}
}

func size(to *int64) func(string) error {
	return func(s string) error {
		n, err := spec.ParseBytes(s)
		if err != nil {
			return errors.New(remedy(err))
		}
		*to = n
		return nil
	}
}

// remedy is what a fault advises, else what it says.
func remedy(err error) string {
	if f := fault.From(err, ""); f.Hint != "" {
		return f.Hint
	}
	return err.Error()
}

// age reads a time, also in days, which history is measured in.
func age(to *time.Duration) func(string) error {
	return func(s string) error {
		wrong := errors.New("give a time such as 12h or 30d, or 0 for any")
		if days, ok := strings.CutSuffix(s, "d"); ok {
			n, err := strconv.ParseInt(days, 10, 32)
			if err != nil || n < 0 || n > 100*365 {
				return wrong
			}
			*to = time.Duration(n) * 24 * time.Hour
			return nil
		}
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return wrong
		}
		*to = d
		return nil
	}
}

func (o *options) setGroup(name string) error {
	g, err := user.LookupGroup(name)
	if err != nil {
		if g, err = user.LookupGroupId(name); err != nil {
			return errors.New("there is no such group: create it with groupadd --system, or name another")
		}
	}
	o.gid, err = strconv.Atoi(g.Gid)
	return err
}

// setMetrics accepts addresses that only this host reaches: metrics tell what
// is run here, and nothing asks who reads them.
func (o *options) setMetrics(s string) error {
	o.metrics = s
	if path, ok := strings.CutPrefix(s, unixMetrics); ok {
		if !filepath.IsAbs(path) {
			return errors.New("give the socket by an absolute path: unix:/run/capsule/metrics.sock")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 0 || n > 65535 {
		return errors.New("give unix:PATH, or a loopback address and a port, such as 127.0.0.1:9464")
	}
	if ip := net.ParseIP(host); host != localhost && (ip == nil || !ip.IsLoopback()) {
		return errors.New("it is not a loopback address: give 127.0.0.1:PORT, [::1]:PORT or unix:PATH, and put a proxy that checks who asks in front of it")
	}
	return nil
}

// help prints what there is to set.
func help(f *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, "capsuled runs executions for others, over a unix socket, and outlives none of them: when it\n"+
		"stops or dies they go on, and the next one takes them over.\n\nUsage:\n  capsuled [FLAG...]\n\nFlags:\n")
	f.VisitAll(func(g *flag.Flag) {
		name, usage := flag.UnquoteUsage(g)
		fmt.Fprintf(w, "  %s\n        %s\n", strings.TrimSpace("--"+g.Name+" "+name), usage)
	})
	fmt.Fprint(w, "\nSignals: TERM and INT stop, HUP reads the configuration and the host's memory and\nsets the group again and reopens the audit log, USR1 drains.\n")
}
