package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// roleVariable makes this program, started again, play another part.
const roleVariable = "CAPSULE_CHAOS_ROLE"

// The parts.
const (
	roleClient = "client"
	roleSpace  = "space"
)

// lateness is how long the end may take after the deadline.
const lateness = 2 * time.Minute

// config is what there is to set.
type config struct {
	supervisors, shims, clients, both int
	load                              int
	seed                              uint64
	bin                               string
	deadline                          time.Duration
	records, space                    bool
	quick                             bool // damage records in fewer ways
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	var c config
	flag.IntVar(&c.supervisors, "supervisors", 300, "kill capsuled so many times")
	flag.IntVar(&c.shims, "shims", 300, "kill so many shims")
	flag.IntVar(&c.clients, "clients", 300, "kill so many clients")
	flag.IntVar(&c.both, "both", 300, "kill capsuled and a shim together so many times")
	flag.IntVar(&c.load, "load", 32, "executions at a time, 2 to 32")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "seed of the load and the pauses")
	flag.StringVar(&c.bin, "bin", "bin", "directory of the programs")
	flag.DurationVar(&c.deadline, "deadline", 15*time.Minute, "end after this time, as a failure")
	flag.BoolVar(&c.records, "records", true, "damage records")
	flag.BoolVar(&c.space, "space", true, "fill up the state directory and make it read-only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := chaos(ctx, c, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// play is main of a role.
func play(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch role {
	case roleClient:
		err = clientMain(ctx, os.Args[1:], os.Stdin, os.Stdout)
	case roleSpace:
		err = spaceMain(ctx, os.Args[1:], os.Stdout)
	default:
		err = fmt.Errorf("unknown role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos "+role+":", err)
		return 1
	}
	return 0
}

// chaos is the whole run. The error says that there were deviations, which are
// told on out.
func chaos(ctx context.Context, c config, out io.Writer) (err error) {
	if c.load < 2 || c.load > 32 {
		return errors.New("-load is within 2..32")
	}
	if os.Geteuid() != 0 {
		return errors.New("run it as root: without it there are neither cgroups nor a mount namespace")
	}
	if c.bin, err = filepath.Abs(c.bin); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.deadline)
	defer cancel()
	// Everything waits for ctx; what does not is an error of this program.
	defer time.AfterFunc(c.deadline+lateness, func() { panic("it hangs") }).Stop()
	dir, err := os.MkdirTemp("", "capsule-chaos-")
	if err != nil {
		return err
	}
	h := newHarness(ctx, c, newHouse(dir, c.bin))
	defer func() { err = errors.Join(err, h.house.raze()) }()
	begin := time.Now()
	h.run()
	h.report(out, time.Since(begin))
	if n := len(h.findings.all()); n > 0 {
		return fmt.Errorf("%d deviations; seed %d", n, c.seed)
	}
	return nil
}

// run goes through the phases. What goes wrong is in the findings.
func (h *harness) run() {
	if !h.begin() {
		return
	}
	for _, p := range h.phases() {
		if p.kills > 0 && h.ctx.Err() == nil {
			h.phase(p)
		}
	}
	h.recheck()
	if h.records && h.ctx.Err() == nil {
		h.damage()
	}
	if h.space && h.ctx.Err() == nil {
		h.outOfSpace()
	}
	if err := context.Cause(h.ctx); err != nil {
		h.findings.add("it did not get to its end: %v", err)
	}
}
