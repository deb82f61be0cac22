package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// cut is a way to damage a record.
type cut struct {
	name string
	make func(whole []byte, r *rand.Rand) []byte
}

// cuts are those of this run.
func (h *harness) cuts() []cut {
	all := cuts()
	if h.quick {
		return []cut{all[0], all[2]}
	}
	return all
}

func cuts() []cut {
	part := func(n, of int) func([]byte, *rand.Rand) []byte {
		return func(whole []byte, _ *rand.Rand) []byte { return whole[:len(whole)*n/of] }
	}
	return []cut{
		{"empty", part(0, 1)},
		{"first byte", func(whole []byte, _ *rand.Rand) []byte { return whole[:1] }},
		{"a third", part(1, 3)},
		// The last byte is the end of the line, without which nothing is missing.
		{"all but two bytes", func(whole []byte, _ *rand.Rand) []byte { return whole[:len(whole)-2] }},
		{"garbage", func(whole []byte, r *rand.Rand) []byte {
			b := bytes.Clone(whole)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return b
		}},
		{"another document", func([]byte, *rand.Rand) []byte { return []byte("{}\n") }},
	}
}

// victim is an execution one of whose records is damaged; record is empty for a
// bystander.
type victim struct {
	*run
	record string // name of the file
	cut    cut
	// true verdicts are wanted of those whose result is whole.
	truth bool
}

func (v *victim) name() string { return v.record + ", " + v.cut.name }

// stage is what executions are doing while their records are damaged.
type stage struct {
	name    string
	records map[string]bool // file name: the true verdict is wanted all the same
	seconds float64         // how long an execution runs
	// running says how many of them run before the daemon is killed; 0: all.
	running int
	// wait returns when the executions are where they are to be; nil: they are.
	wait func(*harness, []*victim) error
	args []string
}

func stages() []stage {
	return []stage{
		{"ended", map[string]bool{"result.json": false, "execution.json": true, "request.json": true}, 2, 0, (*harness).awaitResults, []string{"--max-concurrent", "0"}},
		{"living", map[string]bool{"execution.json": true, "request.json": true}, 6, 0, nil, []string{"--max-concurrent", "0"}},
		// One that was never started has no true verdict to lose.
		{"queued", map[string]bool{"execution.json": false, "request.json": false}, 3, 1, (*harness).awaitBlocker, []string{"--max-concurrent", "1"}},
	}
}

// damage goes through the stages, and through the history.
func (h *harness) damage() {
	for _, s := range stages() {
		if err := h.damageStage(&s); err != nil {
			h.findings.add("damaged records of %s executions: %v", s.name, err)
		}
		h.await("damage of "+s.name, h.left)
	}
	if err := h.damageHistory(); err != nil {
		h.findings.add("damaged history: %v", err)
	}
	h.await("damage of the history", h.left)
}

// victims plans one execution for each record and cut, and bystanders.
func (h *harness) victims(s *stage) []*victim {
	var all []*victim
	add := func(record string, c cut, truth bool) {
		p := &plan{kind: long, id: uuid.NewString(), reason: spec.ReasonExited, exit: len(all) + 1, stdout: []byte("whole\n")}
		p.request = request(fmt.Sprintf("sleep %.1f; echo $0; exit $1", s.seconds), "whole", p.exit, object{})
		all = append(all, &victim{run: h.ledger.enter(p), record: record, cut: c, truth: truth})
	}
	add("", cut{}, true)
	for record, truth := range s.records {
		for _, c := range h.cuts() {
			add(record, c, truth)
		}
	}
	if s.name != "queued" {
		add("", cut{}, true)
	}
	return all
}

func (h *harness) damageStage(s *stage) error {
	r := newRand(h.seed)
	if err := h.house.restart(h.ctx, s.args...); err != nil {
		return err
	}
	l := &link{address: h.house.address}
	defer l.close()
	all := h.victims(s)
	for _, v := range all {
		if err := l.start(h.ctx, v.plan); err != nil {
			return err
		}
		v.markStarted()
	}
	first := all
	if s.running > 0 {
		first = all[:s.running]
	}
	if err := h.awaitShims(first); err != nil {
		return err
	}
	if err := h.house.kill(); err != nil {
		return err
	}
	if s.wait != nil {
		if err := s.wait(h, all); err != nil {
			return err
		}
	}
	for _, v := range all {
		if v.record == "" {
			continue
		}
		path := filepath.Join(string(h.house.state.Execution(v.id)), v.record)
		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, v.cut.make(whole, r), 0o600); err != nil {
			return err
		}
	}
	mark := h.house.logSize()
	if !h.resurrect(true) {
		return nil // told already
	}
	told := 0
	for _, v := range all {
		reported, err := h.examine(l, v, mark)
		if err != nil {
			h.findings.add("%s execution, %s: %v", s.name, v.name(), err)
		}
		if reported {
			told++
		}
	}
	h.note("damaged records of "+s.name+" executions", "%d of %d reported, bystanders unharmed", told, h.damaged(all))
	return nil
}

func (h *harness) damaged(all []*victim) (n int) {
	for _, v := range all {
		if v.record != "" {
			n++
		}
	}
	return n
}

// examineTime bounds the wait for one verdict.
const examineTime = 30 * time.Second

// eventTime is how long after a verdict its execution may be collected.
const eventTime = 5 * time.Second

// examine asks for the verdict, twice, and removes the execution.
func (h *harness) examine(l *link, v *victim, mark int) (reported bool, err error) {
	ctx, cancel := h.within(examineTime)
	defer cancel()
	var first, again *spec.Response
	for _, to := range []**spec.Response{&first, &again} {
		err := l.do(ctx, func(c *client.Client) (err error) {
			*to, err = c.Wait(ctx, v.id)
			return err
		})
		if err != nil {
			return false, fmt.Errorf("wait: %w", err)
		}
	}
	if !bytes.Equal(first.Encode(false), again.Encode(false)) {
		return false, fmt.Errorf("two verdicts: %s and %s", first.Encode(false), again.Encode(false))
	}
	code := ""
	if first.Error != nil {
		code = first.Error.Code
	}
	wrong := v.mismatch(first)
	v.keep(first)
	switch {
	case v.truth && wrong != "":
		return false, fmt.Errorf("its result is whole, but %s: %s", wrong, first.Encode(false))
	case !v.truth && first.Status != spec.StatusError:
		return false, fmt.Errorf("guessed: %s", first.Encode(false))
	case v.record == "":
		return false, nil
	}
	// The event comes when the execution is collected, after its verdict.
	event := false
	for end := time.Now().Add(eventTime); !event && time.Now().Before(end); time.Sleep(pollPause) {
		event = h.eventSince(mark, api.EventUnreadable, v.id)
		if code == string(fault.StateUnreadable) {
			break
		}
	}
	if !event && code != string(fault.StateUnreadable) {
		return false, fmt.Errorf("neither an event %s nor %s: %s", api.EventUnreadable, fault.StateUnreadable, first.Encode(false))
	}
	// A request that is a document, though not the one that was recorded, is the
	// shim's to refuse.
	if !v.truth && !event && code != string(fault.StateUnreadable) {
		return true, fmt.Errorf("code %q, not %s: %s", code, fault.StateUnreadable, first.Encode(false))
	}
	return true, nil
}

// keep takes a verdict that is not to be judged by the plan.
func (v *victim) keep(r *spec.Response) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.outcome = damaged
	if v.record == "" {
		v.outcome = asExpected
	}
	v.verdict = string(r.Status) + string(r.Termination.Reason)
}

// eventSince looks for an event in the daemon's log.
func (h *harness) eventSince(mark int, kind, id string) bool {
	for line := range bytes.Lines(h.house.logSince(mark)) {
		if bytes.Contains(line, []byte("msg="+kind)) && bytes.Contains(line, []byte(id)) {
			return true
		}
	}
	return false
}
