package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// Remove implements api.Supervisor.
func (c *caller) Remove(ctx context.Context, id string, force bool) error {
	e, err := c.find(id)
	if err != nil {
		return err
	}
	if e.summary.Live() {
		if !force {
			return fault.New(fault.InvalidValue, "", "the execution has not ended").WithField("/execution_id").
				WithHint("Stop it first, or remove it with force.")
		}
		if err := c.end(ctx, e); err != nil {
			return err
		}
	}
	if m := c.s.minder(id); m != nil {
		select {
		case <-m.gone:
		case <-ctx.Done():
			return fault.Wrap(fault.Cancelled, "remove", ctx.Err())
		}
	} else if err := c.s.clear(ctx, id, force); err != nil {
		return err
	}
	if err := c.s.history(func(h *history.Store) error { return h.Remove(id) }); err != nil && !(force && is(err, fault.NotFound)) {
		return err
	}
	c.s.emit(api.EventRemoved, id, map[string]string{"by": "caller"})
	return nil
}

// end kills a living execution and waits for its end. A shim that does not answer,
// being stopped for instance, is killed, and with it its sandbox.
func (c *caller) end(ctx context.Context, e *entry) error {
	id := e.summary.ID
	stuck := time.AfterFunc(killPatience, func() { killShim(e.dir) })
	defer stuck.Stop()
	if _, err := c.Kill(ctx, id, 0, true); err != nil && ctx.Err() != nil {
		return err
	} // otherwise Wait tells how it ends
	_, err := c.Wait(ctx, id)
	if e.foreground && is(err, fault.NotFound) {
		return nil // nothing is kept of it
	}
	return err
}

// shimIdentity is what is used of shim.json.
type shimIdentity struct {
	Pid    int    `json:"pid"`
	Start  uint64 `json:"start_time"`
	BootID string `json:"boot_id"`
}

// killShim kills the shim of an execution if it is still the process that
// shim.json names.
func killShim(dir layout.Dir) {
	var who shimIdentity
	data, err := os.ReadFile(dir.Shim())
	if err != nil || json.Unmarshal(data, &who) != nil || who.Pid <= 1 {
		return
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || strings.TrimSpace(string(boot)) != who.BootID {
		return
	}
	fd, err := unix.PidfdOpen(who.Pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// Looked at after the descriptor: the process can no longer become another.
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(who.Pid) + "/stat")
	if err != nil {
		return
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[19] != strconv.FormatUint(who.Start, 10) {
		return
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may just have ended
}

// clear collects an ended execution that nobody minds, for as long as its shim
// may take to end. With force what cannot be collected goes all the same.
func (s *Supervisor) clear(ctx context.Context, id string, force bool) error {
	dir := s.state.Execution(id)
	stuck := time.AfterFunc(killPatience, func() { killShim(dir) })
	defer stuck.Stop()
	late := time.Now().Add(2 * killPatience)
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		_, err := s.collect(id, false, remembered{})
		switch {
		case err == nil || errors.Is(err, os.ErrNotExist):
			return nil
		case !errors.Is(err, errAlive) && force && !needsSweep(dir): // nothing runs that the directory would be missed for
			return s.discardLocked(dir, id)
		case !errors.Is(err, errAlive):
			return err
		case time.Now().After(late):
			return fault.New(fault.ShimLost, "remove execution", "its shim has delivered the result and does not end").WithPath(string(dir)).
				WithHint("Look at the process that shim.json names: it may be stopped, or wait for a device.")
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fault.Wrap(fault.Cancelled, "remove", ctx.Err())
		}
	}
}

// discardLocked removes the directory of an execution whose shim is dead,
// whatever is in it.
func (s *Supervisor) discardLocked(dir layout.Dir, id string) error {
	lock, err := lockDead(dir, false)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.discard(id)
}
