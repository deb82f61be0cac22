package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// damageHistory damages the history of a stopped daemon in several ways. What
// it knew may be lost with it, which is told; nothing is made up, and executions
// that run are not harmed.
func (h *harness) damageHistory() error {
	path := h.house.state.History()
	told := 0
	for i, c := range h.cuts() {
		if err := h.house.restart(h.ctx); err != nil {
			return err
		}
		past, err := h.pastAndPresent(i)
		if err != nil {
			return err
		}
		if err := h.house.kill(); err != nil {
			return err
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, c.make(whole, newRand(h.seed)), 0o600); err != nil {
			return err
		}
		mark := h.house.logSize()
		if !h.resurrect(true) {
			return nil // told already
		}
		if h.eventSince(mark, api.EventUnreadable, "record=history") {
			told++
		} else {
			h.findings.add("damaged history, %s: it is not told", c.name)
		}
		// The end of the file may be unused, and then nothing is missing.
		lost := h.eventSince(mark, api.EventUnreadable, "set_aside=")
		h.examineHistory(c, past, lost)
		// The files that were set aside are as large as the history was.
		if err := h.forgetDamaged(lost); err != nil {
			return err
		}
	}
	h.note("damaged histories", "%d of %d reported, living executions unharmed", told, len(h.cuts()))
	return nil
}

// pastAndPresent runs one execution to its end and starts another.
func (h *harness) pastAndPresent(n int) (runs [2]*run, err error) {
	l := &link{address: h.house.address}
	defer l.close()
	r := newRand(h.seed + uint64(n) + 1)
	for i, k := range []kind{short, long} {
		runs[i] = h.ledger.enter(h.planner.make(k, r))
		if err := l.start(h.ctx, runs[i].plan); err != nil {
			return runs, err
		}
		runs[i].markStarted()
	}
	response, err := h.wait(l, runs[0].id)
	if err == nil {
		err = runs[0].judge(response)
	}
	return runs, err
}

func (h *harness) examineHistory(c cut, runs [2]*run, lost bool) {
	l := &link{address: h.house.address}
	defer l.close()
	for i, r := range runs {
		ctx, cancel := h.within(examineTime)
		var response *spec.Response
		err := l.do(ctx, func(c *client.Client) (err error) {
			response, err = c.Wait(ctx, r.id)
			return err
		})
		cancel()
		if i == 0 && lost && (isFault(err, fault.NotFound) || isFault(err, fault.StateUnreadable)) {
			continue // lost with the file, and told so
		}
		if err == nil {
			err = r.judge(response)
		}
		if err != nil {
			h.findings.add("damaged history, %s: %v", c.name, err)
		}
	}
}

// forgetDamaged removes what was set aside, which is whatever lies beside the
// history under a longer name.
func (h *harness) forgetDamaged(lost bool) error {
	entries, err := os.ReadDir(string(h.house.state))
	if err != nil {
		return err
	}
	aside := 0
	for _, e := range entries {
		if name := []byte(e.Name()); bytes.HasPrefix(name, []byte("history.db.")) && !bytes.HasSuffix(name, []byte(".lock")) {
			aside++
			if err := os.Remove(string(h.house.state) + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	if lost != (aside > 0) {
		return fmt.Errorf("%d damaged histories were set aside; told: %v", aside, lost)
	}
	return nil
}
