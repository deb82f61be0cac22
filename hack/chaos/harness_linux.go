package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/client"
)

// harness is one run of chaos.
type harness struct {
	config
	ctx      context.Context
	house    *house
	ledger   *ledger
	findings *findings
	planner  *planner

	quiet   measure           // the daemon before anything happened
	strikes map[string]int    // by phase
	tally   map[string]string // lines for the table, by topic
	topics  []string
}

func newHarness(ctx context.Context, c config, house *house) *harness {
	h := &harness{config: c, ctx: ctx, house: house, ledger: &ledger{runs: map[string]*run{}}, findings: &findings{},
		planner: &planner{chatter: chattyOutput()}, strikes: map[string]int{}, tally: map[string]string{}}
	house.crashed = func(text string) { h.findings.add("%s", text) }
	// Some wait in the queue, which a kill must not forget either.
	house.args = append(house.args, "--max-concurrent", fmt.Sprint(max(c.load*3/4, 2)))
	return h
}

// note is a line of the table.
func (h *harness) note(topic, format string, args ...any) {
	if _, ok := h.tally[topic]; !ok {
		h.topics = append(h.topics, topic)
	}
	h.tally[topic] = fmt.Sprintf(format, args...)
}

// phase is one way to do harm.
type phase struct {
	name  string
	kills int
	// strike does it once and is false when there was nothing to strike; nil: the
	// workers kill their clients.
	strike func(*rand.Rand) bool
}

func (h *harness) phases() []phase {
	return []phase{
		{"supervisors", h.supervisors, h.strikeSupervisor},
		{"shims", h.shims, h.strikeShim},
		{"clients", h.clients, nil},
		{"both", h.both, h.strikeBoth},
	}
}

// strikeSupervisor kills the daemon and starts it again: at once, after a
// pause, and now and then again before it has recovered.
func (h *harness) strikeSupervisor(r *rand.Rand) bool {
	if err := h.house.kill(); err != nil {
		h.findings.add("kill capsuled: %v", err)
	}
	if r.IntN(3) == 0 {
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	}
	return h.resurrect(r.IntN(4) != 0)
}

// strikeBoth kills the daemon and a shim, in either order.
func (h *harness) strikeBoth(r *rand.Rand) bool {
	before := r.IntN(2) == 0
	if before && !h.strikeShim(r) {
		return false
	}
	if err := h.house.kill(); err != nil {
		h.findings.add("kill capsuled: %v", err)
	}
	struck := before || h.strikeShim(r)
	return h.resurrect(r.IntN(4) != 0) && struck
}

func (h *harness) resurrect(wait bool) bool {
	err := h.house.start()
	if err == nil && wait {
		err = h.house.ready(h.ctx)
	}
	if err != nil && h.ctx.Err() == nil {
		h.findings.add("start capsuled: %v", err)
		return false
	}
	return true
}

// phase runs the load and strikes until it has struck often enough.
func (h *harness) phase(p phase) {
	stop := make(chan struct{})
	var clientKills atomic.Int64
	var workers sync.WaitGroup
	for i := range h.load {
		w := &worker{rand: rand.New(rand.NewPCG(h.seed, uint64(len(p.name)*1000+i))), link: link{address: h.house.address}, clientKills: &clientKills}
		strikes := p.strike == nil && i%2 == 0
		owner := p.strike != nil && i%8 == 0
		workers.Go(func() { h.work(w, stop, strikes, owner) })
	}
	r := rand.New(rand.NewPCG(h.seed, uint64(len(p.name))))
	pauser := &worker{rand: r}
	for n := 0; n < p.kills && h.ctx.Err() == nil; {
		if p.strike == nil {
			time.Sleep(pollPause)
			n = int(clientKills.Load())
		} else if pauser.pause(h.ctx, 400); p.strike(r) {
			n++
		}
		h.strikes[p.name] = n
	}
	close(stop)
	workers.Wait()
	h.revive()
	h.settle(p.name)
}

// revive makes sure that there is a daemon, which may have ended by itself.
func (h *harness) revive() {
	if h.ctx.Err() != nil {
		return
	}
	if h.house.dead() {
		h.resurrect(true)
	} else if err := h.house.ready(h.ctx); err != nil {
		h.findings.add("%v", err)
	}
}

// worker drives one execution after the other.
type worker struct {
	rand        *rand.Rand
	link        link
	clientKills *atomic.Int64
}

// pause lets up to so many milliseconds pass. Where it strikes is the point.
func (w *worker) pause(ctx context.Context, ms int) {
	select {
	case <-time.After(time.Duration(w.rand.IntN(ms*1000)) * time.Microsecond):
	case <-ctx.Done():
	}
}

// kind takes one from the mixture that is the load.
func (w *worker) kind() kind {
	all := []kind{short, short, short, short, long, long, long, forking, forking, hungry, starved, chatty}
	return all[w.rand.IntN(len(all))]
}

func (h *harness) work(w *worker, stop <-chan struct{}, strikes, owner bool) {
	defer w.link.close()
	for h.ctx.Err() == nil {
		select {
		case <-stop:
			return
		default:
		}
		var err error
		var r *run
		switch {
		case strikes:
			r = h.ledger.enter(h.planner.make([]kind{deserted, visited}[w.rand.IntN(2)], w.rand))
			err = h.patron(w, r, true)
		case owner:
			r = h.ledger.enter(h.planner.make(owned, w.rand))
			err = h.patron(w, r, false)
		default:
			r = h.ledger.enter(h.planner.make(w.kind(), w.rand))
			err = h.drive(w, r)
		}
		if err != nil && h.ctx.Err() == nil {
			h.findings.add("%s %s: %v", r.kind, r.id, err)
		}
	}
}

// drive starts an execution and sees it to its verdict, twice.
func (h *harness) drive(w *worker, r *run) error {
	if err := w.link.start(h.ctx, r.plan); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	r.markStarted()
	if r.kind == chatty && w.rand.IntN(2) == 0 {
		if err := h.follow(w, r); err != nil {
			return err
		}
	}
	for range 2 {
		response, err := h.wait(&w.link, r.id)
		if err == nil {
			err = r.judge(response)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// follow reads the output while it comes; what comes is the beginning of what
// was planned, and all of it when the execution ended as planned.
func (h *harness) follow(w *worker, r *run) error {
	out, missed, err := w.link.watch(h.ctx, r.id)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	r.mu.Lock()
	hits := r.shimHits
	r.mu.Unlock()
	if hits > 0 {
		return nil // what it kept in memory died with it
	}
	if missed != 0 || string(out) != string(r.stdout) {
		return fmt.Errorf("attach passed on %d bytes and missed %d of %d", len(out), missed, len(r.stdout))
	}
	return nil
}

// wait asks for the response.
func (h *harness) wait(l *link, id string) (response *spec.Response, err error) {
	err = l.do(h.ctx, func(c *client.Client) (err error) {
		response, err = c.Wait(h.ctx, id)
		return err
	})
	return response, err
}

// lines are what a client process prints.
func lines(from io.Reader) (all [][]byte) {
	s := bufio.NewScanner(from)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		all = append(all, bytes.Clone(s.Bytes()))
	}
	return all
}
