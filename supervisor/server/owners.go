package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// owners knows which connection an execution with kill_on_disconnect belongs
// to, and ends those that belong to none.
type owners struct {
	ctx        context.Context
	supervisor func(uid uint32) api.Supervisor
	log        *slog.Logger
	patience   time.Duration

	mu     sync.Mutex
	closed bool
	owned  map[string]*owned
}

// owned is one execution.
type owned struct {
	uid   uint32      // whose it is
	conn  *connection // nil: nobody's
	timer *time.Timer // runs while conn is nil
	end   context.CancelFunc
}

const (
	killPatience = 15 * time.Second // for one attempt
	killRetry    = 2 * time.Second  // between attempts
	watchRetry   = 2 * time.Second
)

func newOwners(ctx context.Context, supervisor func(uint32) api.Supervisor, log *slog.Logger, patience time.Duration) *owners {
	return &owners{
		ctx: ctx, supervisor: supervisor, log: log, patience: patience,
		owned: map[string]*owned{},
	}
}

// started gives an execution to the connection that started it, or started it again.
func (o *owners) started(e *api.Summary, c *connection) {
	if !e.KillOnDisconnect || !e.Live() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.give(o.entry(e.ID, e.Owner), e.ID, c)
}

// claim gives an execution that is owned already to another connection, if its
// caller may have it.
func (o *owners) claim(id string, c *connection) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e := o.owned[id]; e != nil && (c.caller.UID == e.uid || c.caller.UID == 0) {
		o.give(e, id, c)
	}
}

// adopt gives an execution to nobody for now.
func (o *owners) adopt(id string, uid uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed && o.owned[id] == nil {
		o.give(o.entry(id, uid), id, nil)
	}
}

// entry finds or makes an execution's entry, which goes when it ends. Locked.
func (o *owners) entry(id string, uid uint32) *owned {
	if e := o.owned[id]; e != nil {
		return e
	}
	ctx, cancel := context.WithCancel(o.ctx)
	e := &owned{uid: uid, end: cancel}
	o.owned[id] = e
	go o.watch(ctx, id, e)
	return e
}

// watch forgets an execution when it has ended.
func (o *owners) watch(ctx context.Context, id string, e *owned) {
	for ctx.Err() == nil {
		err := guarded(o.log, "Wait", func() error {
			_, err := o.supervisor(e.uid).Wait(ctx, id)
			return err
		})
		if err == nil || errors.Is(err, &fault.Fault{Code: fault.NotFound}) {
			o.forget(id, e)
			return
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
}

// give makes c the owner; nil, or one that has ended: nobody. Locked.
func (o *owners) give(e *owned, id string, c *connection) {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	if c != nil && c.gone {
		c = nil // its Start was under way when it ended
	}
	e.conn = c
	if c == nil && !o.closed {
		o.arm(e, id, o.patience)
	}
}

// arm lets the execution be killed after d. Locked.
func (o *owners) arm(e *owned, id string, d time.Duration) {
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		o.mu.Lock()
		due := o.owned[id] == e && e.timer == timer && !o.closed
		o.mu.Unlock()
		if due {
			o.kill(e, id, timer)
		}
	})
	e.timer = timer
}

// kill ends the execution, and tries again later when that fails.
func (o *owners) kill(e *owned, id string, timer *time.Timer) {
	ctx, cancel := context.WithTimeout(o.ctx, killPatience)
	defer cancel()
	err := guarded(o.log, "Kill", func() error {
		_, err := o.supervisor(e.uid).Kill(ctx, id, 0, true)
		return err
	})
	if err == nil {
		o.log.Info("killed an execution whose caller is gone", "execution", id, "uid", e.uid)
	}
	if err == nil || errors.Is(err, &fault.Fault{Code: fault.NotFound}) {
		o.forget(id, e)
		return
	}
	o.log.Warn("cannot kill an execution whose caller is gone", "execution", id, "uid", e.uid, "error", err)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owned[id] == e && e.timer == timer && !o.closed {
		o.arm(e, id, killRetry)
	}
}

// disconnected leaves the executions of a connection to whoever takes them over.
func (o *owners) disconnected(c *connection) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.gone = true
	for id, e := range o.owned {
		if e.conn == c {
			o.give(e, id, nil)
		}
	}
}

func (o *owners) forget(id string, e *owned) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owned[id] != e {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.end()
	delete(o.owned, id)
}

// close lets nothing be killed any more.
func (o *owners) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, e := range o.owned {
		if e.timer != nil {
			e.timer.Stop()
		}
		e.end()
	}
}
