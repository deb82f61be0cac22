package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/client"
)

// tell lets systemd know, when it started this process.
func tell(log *slog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "error", err)
	}
}

// reloading is what Type=notify-reload waits for.
func reloading() string {
	return sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec()
}

// watchdog tells systemd that this process lives, for as long as the API
// answers like to anybody else.
func watchdog(ctx context.Context, address string, log *slog.Logger) {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog", "error", err)
	}
	if err != nil || every <= 0 {
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	var probe prober
	defer probe.close()
	for {
		asked, cancel := context.WithTimeout(ctx, every/3)
		err := probe.ask(asked, address)
		cancel()
		if err == nil {
			tell(log, sd.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			log.Error("the API does not answer; systemd restarts this process if that goes on", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// prober asks Health over a connection that it keeps, so that callers who use
// up all connections do not make the daemon look dead.
type prober struct{ c *client.Client }

func (p *prober) ask(ctx context.Context, address string) error {
	if p.c == nil {
		c, err := client.Dial(ctx, address)
		if errors.Is(err, &fault.Fault{Code: fault.TooManyExecutions}) {
			return nil // that is an answer
		}
		if err != nil {
			return err
		}
		p.c = c
	}
	_, _, err := p.c.Health(ctx)
	if err != nil {
		p.close()
	}
	return err
}

func (p *prober) close() {
	if p.c != nil {
		_ = p.c.Close() // it is of no more use
		p.c = nil
	}
}
