package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// signalsOf subscribes to what this program understands.
func signalsOf() chan os.Signal {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	// Whoever reads the log may end first. Not ignored: programs that are started
	// would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return c
}

// attend does what signals say, until one says stop or all is drained.
func (d *daemon) attend(signals <-chan os.Signal) error {
	drained := make(chan error, 1)
	draining := false
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				d.reload()
			case syscall.SIGUSR1:
				if draining {
					continue
				}
				draining = true
				d.log.Info("draining: refusing new executions, waiting for those that run")
				d.work.Go(func() { drained <- d.sup.Drain(d.ctx) })
				d.report()
			default:
				d.log.Info("stopping; executions go on", "signal", s.String())
				return nil
			}
		case err := <-drained:
			if errors.Is(err, &fault.Fault{Code: fault.Cancelled}) {
				return nil
			}
			d.server.Settle() // whoever waited for the last one is told
			d.log.Info("drained")
			return err
		}
	}
}

// impatient lets a further signal end the process at once: nothing is lost by it.
func impatient(signals <-chan os.Signal, ended <-chan struct{}, log *slog.Logger) {
	for {
		select {
		case s := <-signals:
			if n, ok := s.(syscall.Signal); ok && (s == syscall.SIGTERM || s == syscall.SIGINT) {
				log.Warn("ending at once", "signal", s.String())
				os.Exit(128 + int(n))
			}
		case <-ended:
			return
		}
	}
}

// reload takes in what may have changed outside. A configuration that is wrong
// changes nothing.
func (d *daemon) reload() {
	tell(d.log, reloading())
	defer tell(d.log, sd.SdNotifyReady)
	next, err := parse(d.o.args, io.Discard)
	if err == nil {
		err = d.configure(next)
	}
	if err != nil {
		d.log.Error("the configuration stays as it was", "error", err)
		d.sup.PolicyRefused(err)
	}
	d.health.set(problemConfig, err)
	if err := d.audit.reopen(); err != nil {
		d.log.Error("the audit log goes on in the file that was open", "error", err)
	}
	if d.o.hostBudget {
		d.o.admission.MemoryBudget = hostBudget()
	}
	d.sup.SetLimits(d.o.admission)
	for _, l := range d.listeners {
		if e, ok := l.(*endpoint); ok {
			if err := e.readmit(d.o.gid); err != nil {
				d.log.Error("the group of the socket", "error", err)
			}
		}
	}
	d.log.Info("reloaded", "memory_budget_bytes", d.o.admission.MemoryBudget, "audit_log", d.o.audit, "policy", d.sup.PolicyHash())
}

// configure takes a new configuration in, as far as that is possible while the
// daemon runs.
func (d *daemon) configure(next options) error {
	rules, err := policy.New(next.config)
	if err != nil {
		return err
	}
	for _, k := range []struct {
		name     string
		old, new any
	}{
		{"daemon.address", d.o.given, next.given}, {"state.directory", d.o.state, next.state}, {"daemon.group", d.o.gid, next.gid},
		{"daemon.log_format", d.o.format, next.format}, {"daemon.log_level", d.o.level, next.level},
		{"monitoring.prometheus", d.o.metrics, next.metrics}, {"state.sweep_interval_ms", d.o.interval, next.interval},
		{"security.audit_log", d.o.audit, next.audit},
	} {
		if k.old != k.new {
			d.log.Warn("a restart is needed for this to take effect", "key", k.name)
		}
	}
	d.o.config, d.o.admission, d.o.hostBudget, d.o.history = next.config, next.admission, next.hostBudget, next.history
	d.audit.bound(next.config)
	d.sup.SetPolicy(rules)
	d.sup.SetRetention(next.history)
	return nil
}
