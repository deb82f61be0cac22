package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/api/wire"
	"github.com/capsule-run/capsule/supervisor/policy"
	"github.com/capsule-run/capsule/supervisor/server"
)

// daemon is one running capsuled. Its fields are acquired in this order and
// given back in the reverse one.
type daemon struct {
	o   options
	log *slog.Logger

	lock      *os.File
	audit     *audit
	listeners []net.Listener
	web       net.Listener // nil: no metrics are served
	sup       *supervisor.Supervisor
	follower  *follower
	metrics   *metrics
	http      *http.Server
	server    *server.Server
	health    health

	ctx  context.Context // ends when the daemon stops
	stop context.CancelFunc
	work sync.WaitGroup // what ends with ctx
}

// run serves until it is told to stop. Executions go on.
func run(o options, signals <-chan os.Signal, log *slog.Logger) error {
	d := &daemon{o: o, log: log}
	d.ctx, d.stop = context.WithCancel(context.Background())
	err := d.open()
	if err == nil {
		tell(log, sd.SdNotifyReady)
		d.report()
		err = d.attend(signals)
	}
	ended := make(chan struct{})
	defer close(ended)
	go impatient(signals, ended, log)
	tell(log, sd.SdNotifyStopping)
	return errors.Join(err, d.close())
}

// open acquires everything and begins to serve.
func (d *daemon) open() error {
	rules, err := policy.New(d.o.config)
	if err != nil {
		return err
	}
	options := supervisor.Options{StateDir: d.o.state, Policy: rules}
	s, err := supervisor.New(options) // it makes and checks the state directory
	if err != nil {
		return err
	}
	if d.lock, err = takeLock(layout.State(s.StateDir())); err != nil {
		return err
	}
	if d.audit, err = openAudit(d.o.audit, d.o.config); err != nil {
		return err
	}
	options.CgroupBeside = besideUnit(d.log)
	// Before recovery: who connects meanwhile waits.
	if err := d.listen(); err != nil {
		return err
	}
	d.sup, err = supervisor.NewDaemon(supervisor.DaemonOptions{Options: options, Admission: d.o.admission,
		Retention: d.o.history, Pool: d.o.pool, Log: d.log, Version: version})
	if err != nil {
		return err
	}
	d.server = server.New(server.Options{Supervisor: d.view, Answer: d.sup.Answer, Log: d.log, Allowed: d.allowed(), Health: d.serverHealth})
	d.metrics = newMetrics(version, d.sup.As(0).Info, d.server.Connections, d.sup.PoolStats)
	if d.follower, err = newFollower(d.ctx, d.sup.As(0), d.metrics, d.audit, d.log); err != nil {
		return err
	}
	d.follower.start()
	d.recover()
	d.serve()
	return nil
}

// listen takes the sockets of a socket unit, or makes one.
func (d *daemon) listen() (err error) {
	if d.listeners, err = activated(d.o.gid); err != nil {
		return err
	}
	if len(d.listeners) == 0 {
		l, err := listen(d.o.address, d.o.gid)
		if err != nil {
			return err
		}
		d.listeners = append(d.listeners, l)
	} else {
		d.o.address = d.listeners[0].Addr().String()
	}
	if d.o.metrics != "" {
		d.web, err = openHTTP(d.o.metrics, d.o.gid)
	}
	return err
}

// view is the supervisor for a caller.
func (d *daemon) view(uid uint32) api.Supervisor {
	v := api.Supervisor(&counting{d.sup.As(uid), d.metrics})
	if d.audit != nil {
		v = &audited{v, uid, d.audit, d.sup.PolicyHash}
	}
	return v
}

// allowed is who may use a connection. With a group the kernel has checked who
// may open the socket; each caller sees only what is its own.
func (d *daemon) allowed() func(wire.Credentials) bool {
	if d.o.gid == noGroup {
		return nil // root and this user
	}
	return func(wire.Credentials) bool { return true }
}

// recover takes over what the last daemon left.
func (d *daemon) recover() {
	tell(d.log, "STATUS=taking over executions")
	begun := time.Now()
	r, err := d.sup.RecoverAll(d.ctx)
	d.log.Info("took over", "live", r.Live, "queued", r.Queued, "collected", r.Collected, "lost", r.Lost, "took", time.Since(begun).Round(time.Millisecond))
	if err != nil {
		// Housekeeping tries again.
		d.log.Error("some executions could not be taken over", "error", err)
	}
	d.health.set(problemState, err)
	d.adopt(r.Owned)
}

// adopt hands those that end with their caller to the server.
func (d *daemon) adopt(ids []string) {
	var owned []api.Summary
	for _, id := range ids {
		if s, ok := d.follower.whose(id); ok {
			owned = append(owned, s)
		}
	}
	d.server.Adopt(owned)
}

// serve begins to accept callers.
func (d *daemon) serve() {
	for _, l := range d.listeners {
		d.work.Go(func() {
			if err := d.server.Serve(d.ctx, l); err != nil {
				d.log.Error("callers are not served any more", "error", err)
				d.health.set(problemSocket, err)
			}
		})
		d.log.Info("serving", "address", l.Addr().String())
	}
	if d.web != nil {
		d.http = newHTTP(d.metrics.registry, d.well, d.log)
		d.work.Go(func() { serveHTTP(d.http, d.web, d.log) })
		d.log.Info("serving metrics", "address", d.web.Addr().String())
	}
	d.work.Go(d.housekeep)
	d.work.Go(func() { d.sup.Watch(d.ctx) })
	d.work.Go(func() { watchdog(d.ctx, d.o.address, d.log) })
}

// housekeep collects and removes what nobody else does.
func (d *daemon) housekeep() {
	tick := time.NewTicker(d.o.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-d.ctx.Done():
			return
		}
		owned, err := d.sup.Housekeep()
		d.adopt(owned)
		if err != nil {
			d.log.Warn("housekeeping", "error", err)
		}
		if err := d.sup.Compact(); err != nil {
			d.log.Warn("compact history", "error", err) // it is larger than it need be, and no less true
		}
		d.health.set(problemState, err)
		d.report()
	}
}

// report is the line that systemctl status shows.
func (d *daemon) report() {
	i, err := d.sup.As(0).Info(d.ctx)
	if err != nil {
		return // Housekeep has told of it
	}
	state := "serving"
	if i.Draining {
		state = "draining"
	}
	tell(d.log, fmt.Sprintf("STATUS=%s; %d running, %d queued, %d in history", state, i.Running, i.Queued, i.History))
}

// close gives back what open acquired, as far as it came.
func (d *daemon) close() error {
	var errs []error
	if d.server != nil {
		errs = append(errs, d.server.Close())
	}
	d.stop()
	for _, l := range d.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if d.http != nil {
		errs = append(errs, d.http.Close())
	}
	if d.web != nil {
		if err := d.web.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if d.sup != nil {
		d.sup.EndSoon() // housekeeping is among the work
	}
	d.work.Wait()
	if d.sup != nil {
		d.sup.Leave() // a result that was given has its event after this
	}
	if d.follower != nil {
		d.follower.finish()
	}
	if d.sup != nil {
		errs = append(errs, d.sup.Close())
	}
	errs = append(errs, d.audit.close())
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}
