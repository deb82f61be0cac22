// Capsuled watches over a state directory: at its start and at every interval
// it removes what dead shims left there: processes, cgroups, directories. It
// offers no API yet; capsulectl embeds the supervisor and needs no daemon.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/supervisor"
)

// Set by the linker.
var version, commit = "(devel)", "unknown"

// options are the parsed flags.
type options struct {
	state, format string
	level         slog.Level
	interval      time.Duration
	version       bool
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2) // parse has said why
	case o.version:
		fmt.Println("capsuled", version, commit)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "capsuled:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("capsuled", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.state, "state", "", "state `directory` (default $CAPSULE_STATE, else /run/capsule, else $XDG_RUNTIME_DIR/capsule)")
	f.StringVar(&o.format, "log-format", "text", "text or json")
	f.TextVar(&o.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	f.DurationVar(&o.interval, "sweep-interval", 10*time.Second, "time between two sweeps, at least 100ms")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	err := f.Parse(args)
	switch {
	case err != nil:
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.format != "text" && o.format != "json":
		err = fmt.Errorf("-log-format is text or json, not %q", o.format)
	case o.interval < 100*time.Millisecond:
		err = fmt.Errorf("-sweep-interval is at least 100ms, not %v", o.interval)
	default:
		return o, nil
	}
	if !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, "capsuled:", err)
	}
	return o, err
}

// run sweeps until ctx is done.
func run(ctx context.Context, o options, stderr io.Writer) error {
	s, err := supervisor.New(supervisor.Options{StateDir: o.state})
	if err != nil {
		return err
	}
	var handler slog.Handler = slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: o.level})
	if o.format == "json" {
		handler = slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: o.level})
	}
	log := slog.New(handler)
	log.Info("watching", "state", s.StateDir(), "sweep_interval", o.interval.String())
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	for {
		if swept := s.Sweep(); swept {
			log.Info("removed what dead shims left")
		} else {
			log.Debug("nothing to remove")
		}
		select {
		case <-ctx.Done():
			log.Info("stopping; executions go on")
			return nil
		case <-tick.C:
		}
	}
}
