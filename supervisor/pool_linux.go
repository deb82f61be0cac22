package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// PoolLimits bound the sandboxes that a daemon prepares ahead.
type PoolLimits struct {
	// Size is how many there may be; 0: none is prepared.
	Size int
	// Idle is how long nobody may ask for one until their number falls.
	Idle time.Duration
}

// pool keeps shims whose sandboxes are built and wait for an execution. Each is
// used once. What it prepares are the usual walls, and what requests wanted that
// these did not fit, see template. How many it keeps of each follows the demand: one
// at the beginning, twice as many after each request that found none, half after each
// idle time, and none in the end. A request that finds none starts a shim of its own,
// and so do those of a caller of whom several in a row wanted other sandboxes.
type pool struct {
	s      *Supervisor
	limits PoolLimits
	wake   chan struct{} // one element: there is something to do
	done   chan struct{} // closed when fill has returned
	ending sync.WaitGroup

	mu        sync.Mutex
	templates []*template       // the first is that of the usual walls
	keys      map[pattern]known // of requests that found no fitting sandbox
	stats     PoolStats
	age       int    // of the policy; a shim of an earlier one is not given away
	walls     []byte // see usualWalls; nil: they are not known for this age
	ended     bool   // nothing is prepared any more
}

// PoolStats count what became of requests and sandboxes.
type PoolStats struct {
	Ready int // wait now
	// Templates are the kinds of sandboxes that are prepared.
	Templates int
	// Hits are executions that ran in a prepared sandbox, Unfit those that wanted
	// another than was ready, Misses those for which none was.
	Hits, Unfit, Misses uint64
	// Failed counts attempts to prepare one that did not succeed.
	Failed uint64
	// Prepared counts those that were built, Spent the time that it took.
	Prepared uint64
	Spent    time.Duration
}

// ready is a shim that waits. Whoever takes it has all of it.
type ready struct {
	dir     layout.Dir
	lock    *os.File
	conn    *net.UnixConn
	process *process
	program unix.Stat_t
	age     int
	of      *template
	pattern pattern // of the request that took it
	taker   uint32  // whose request that was
	learns  bool    // another of that pattern may be prepared for
}

func newPool(s *Supervisor, l PoolLimits) *pool {
	usual := &template{owner: uint32(os.Geteuid()), want: min(1, l.Size), asked: time.Now()}
	p := &pool{s: s, limits: l, templates: []*template{usual}, keys: map[pattern]known{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if l.Size == 0 {
		close(p.done)
		return p
	}
	go p.fill(s.daemon.ctx)
	return p
}

func (p *pool) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// fill prepares one sandbox after the other, so that they take at most one
// processor from what runs.
func (p *pool) fill(ctx context.Context) {
	defer close(p.done)
	tick := time.NewTicker(max(p.limits.Idle, time.Second))
	defer tick.Stop()
	pause := shortPause
	p.poke()
	for {
		select {
		case <-ctx.Done():
			p.end()
			return
		case <-tick.C:
			p.shrink()
		case <-p.wake:
		}
		for t := p.next(ctx); t != nil; t = p.next(ctx) {
			err := p.prepare(ctx, t)
			if err == nil {
				pause = shortPause
				continue
			}
			if ctx.Err() == nil {
				p.s.daemon.log.Warn("prepare a sandbox", "error", err)
			}
			// A host that cannot is asked less and less often.
			pause = min(2*pause, time.Minute)
			p.failed(t, pause)
		}
	}
}

// next is the template of which a sandbox is missing, the one asked for last first.
func (p *pool) next(ctx context.Context) (next *template) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	now := time.Now()
	for _, t := range p.templates {
		if t.lacks(now) && (next == nil || t.asked.After(next.asked)) {
			next = t
		}
	}
	return next
}

// prepare starts a shim and waits until its sandbox is built.
func (p *pool) prepare(ctx context.Context, t *template) error {
	p.mu.Lock()
	r := &ready{age: p.age, of: t}
	p.mu.Unlock()
	begun := time.Now()
	err := p.start(ctx, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.dismiss(r)
		return err
	}
	p.stats.Prepared++
	p.stats.Spent += time.Since(begun)
	if p.ended || r.age != p.age || len(t.ready) >= t.want {
		p.dismiss(r)
		return nil
	}
	t.ready = append(t.ready, r)
	return nil
}

// preparePatience bounds the time for one sandbox.
const preparePatience = 30 * time.Second

func (p *pool) start(ctx context.Context, r *ready) error {
	id, err := executionID("")
	if err != nil {
		return err
	}
	if err := unix.Stat(p.s.shim, &r.program); err != nil {
		return fault.Wrap(fault.Unreachable, "find capsule-shim", err).WithPath(p.s.shim)
	}
	boot, err := p.message(id, r.of)
	if err != nil {
		return err
	}
	r.dir = p.s.state.Execution(id)
	if r.lock, err = makeLocked(r.dir); err != nil {
		return err
	}
	// By this file others know that it is no execution yet; the shim fills it.
	if err := layout.WriteFile(r.dir.Cgroup(), nil); err != nil {
		return errors.Join(err, os.RemoveAll(string(r.dir)))
	}
	conn, process, err := p.s.startShim(boot, r.lock)
	if err != nil {
		return errors.Join(err, os.RemoveAll(string(r.dir)))
	}
	r.conn, r.process = conn.(*net.UnixConn), process
	if err := r.conn.SetReadDeadline(time.Now().Add(preparePatience)); err != nil {
		return err
	}
	// After that deadline, which it is to replace.
	stop := context.AfterFunc(ctx, func() { _ = r.conn.SetReadDeadline(time.Now()) })
	defer stop()
	said := make([]byte, 4<<10)
	n, err := r.conn.Read(said)
	if err != nil {
		return fault.Wrap(fault.ShimLost, "prepare a sandbox", errors.Join(err, ctx.Err()))
	}
	if n != 1 || said[0] != shimapi.Ready {
		return errors.New(string(said[:n]))
	}
	return r.conn.SetReadDeadline(time.Time{})
}

// refillDelay is how long the next sandbox waits for the execution that took the last
// one to begin, which needs the processors more.
const refillDelay = 5 * time.Millisecond

// take gives a shim away whose sandbox may fit the request; nil: there is none.
func (p *pool) take(owner uint32, req *spec.Request) *ready {
	if p == nil || p.limits.Size == 0 {
		return nil
	}
	// When it is taken, however long that takes: no other poke comes for it.
	defer func() { time.AfterFunc(refillDelay, p.poke) }()
	key := patternOf(req)
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.wanted(owner, req, key)
	now := time.Now()
	if t == nil || t.spares(owner, now) {
		p.stats.Misses++
		return nil
	}
	t.asked = now
	var program unix.Stat_t
	if unix.Stat(p.s.shim, &program) != nil {
		return nil
	}
	for len(t.ready) > 0 {
		r := t.ready[0]
		t.ready = t.ready[1:]
		// After an upgrade the programs of the new build belong together.
		if r.age == p.age && r.program.Ino == program.Ino && r.program.Dev == program.Dev && r.program.Mtim == program.Mtim {
			r.pattern, r.learns, r.taker = key, learnable(req), owner
			return r
		}
		p.dismiss(r)
	}
	p.stats.Misses++
	p.grow(t)
	return nil
}

// wanted is the template whose sandboxes may fit a request, which has been
// learned from this one if need be; nil: none can.
func (p *pool) wanted(owner uint32, req *spec.Request, key pattern) *template {
	if t := p.of(key); t != nil {
		return t
	}
	switch p.keys[key] {
	case knownVain:
		return nil
	case knownUnfit:
		return p.learn(owner, req, key)
	}
	return p.usual()
}

// unfitInARow is how many requests of a caller in a row may want other sandboxes than
// are ready until it gets none for the idle time.
const unfitInARow = 8

// used takes note of whether an execution ran in the sandbox that it was given, or in another.
// Neither: it was refused or ended before, which says nothing of the sandbox.
func (p *pool) used(r *ready, fit, other bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := r.of
	if fit {
		p.stats.Hits++
		delete(t.vain, r.taker)
		return
	}
	p.stats.Unfit++
	if !other {
		return
	}
	switch {
	case r.pattern == t.key:
		p.drop(t, len(t.ready)) // the host has changed since they were made
		p.poke()
	case r.learns:
		p.note(r.pattern, knownUnfit)
	}
	t.wasted(r.taker, p.limits.Idle)
}

// restFor lets nothing be prepared for a while.
func (p *pool) restFor(t *template, d time.Duration) {
	t.rest = time.Now().Add(d)
	time.AfterFunc(d, p.poke)
}

// failed notes that a sandbox could not be prepared: the usual one is tried again
// after a pause, another one is not.
func (p *pool) failed(t *template, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Failed++
	if t == p.usual() {
		p.restFor(t, pause)
		return
	}
	p.forget(t)
	p.note(t.key, knownVain)
}

// shrink lets the numbers fall of what nobody asked for in the idle time.
func (p *pool) shrink() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range slices.Clone(p.templates) {
		if time.Since(t.asked) < p.limits.Idle {
			continue
		}
		t.want /= 2
		p.drop(t, len(t.ready)-t.want)
		if t.want == 0 && t != p.usual() {
			p.forget(t)
		}
	}
}

// renew replaces every sandbox, for what they were made by has changed. What was
// learned is learned anew.
func (p *pool) renew() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age++
	p.walls = nil
	for _, t := range slices.Clone(p.templates[1:]) {
		p.forget(t)
	}
	p.drop(p.usual(), len(p.usual().ready))
	clear(p.keys)
	p.poke()
}

// drop dismisses the n oldest of a template, if n is positive. p.mu is held.
func (p *pool) drop(t *template, n int) {
	for range max(n, 0) {
		p.dismiss(t.ready[0])
		t.ready = t.ready[1:]
	}
}

// dismiss ends a shim that nobody takes. p.mu is held.
func (p *pool) dismiss(r *ready) { p.ending.Go(func() { p.remove(r) }) }

// giveBack ends a shim that was taken.
func (p *pool) giveBack(r *ready) {
	p.mu.Lock()
	ended := p.ended
	if !ended {
		p.dismiss(r)
	}
	p.mu.Unlock()
	if ended {
		p.remove(r)
	}
}

// remove ends a shim, and removes what it left if it was killed.
func (p *pool) remove(r *ready) {
	r.end()
	if r.dir == "" {
		return
	}
	if _, err := os.Lstat(string(r.dir)); err == nil {
		p.s.sweepOne(filepath.Base(string(r.dir)))()
	}
}

// end dismisses all. It returns when they are gone.
func (p *pool) end() {
	p.mu.Lock()
	p.ended = true
	for _, t := range p.templates {
		p.drop(t, len(t.ready))
	}
	p.mu.Unlock()
	p.ending.Wait()
}

// PoolStats tells of the sandboxes that a daemon prepares.
func (s *Supervisor) PoolStats() PoolStats {
	p := s.daemon.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.stats
	stats.Templates = len(p.templates)
	for _, t := range p.templates {
		stats.Ready += len(t.ready)
	}
	return stats
}

// endPatience is how long a shim may take to give everything back: less than
// systemd waits for a daemon that is to stop.
const endPatience = 5 * time.Second

// end closes the connection, by which the shim gives everything back, and waits
// for it. One that does not end is killed; the sweep of its directory does the rest.
func (r *ready) end() {
	if r == nil {
		return
	}
	if r.conn != nil {
		_ = r.conn.Close()
	}
	if r.process != nil {
		late := time.AfterFunc(endPatience, r.process.kill)
		r.process.wait()
		late.Stop()
	}
	if r.lock != nil {
		_ = r.lock.Close()
	}
}

// name gives the directory of a prepared sandbox the id of an execution.
func (r *ready) name(dir layout.Dir) error {
	err := unix.Renameat2(unix.AT_FDCWD, string(r.dir), unix.AT_FDCWD, string(dir), unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		return errTaken()
	}
	if err != nil {
		return fault.Wrap(fault.IO, "name execution directory", err)
	}
	r.dir = dir
	failpoint.Here("supervisor.start.named")
	return nil
}

// tell gives the shim its execution. False: it is dead.
func (r *ready) tell(boot shimapi.Bootstrap) (bool, error) {
	message, err := boot.Encode()
	if err != nil {
		r.end()
		return false, err
	}
	if err := tell(r.conn, message, nil); err != nil {
		r.process.kill()
		_ = r.conn.Close()
		r.process.wait()
		return false, nil
	}
	failpoint.Here("supervisor.start.told")
	return true, nil
}
