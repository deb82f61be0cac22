package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// PoolLimits bound the sandboxes that a daemon prepares ahead.
type PoolLimits struct {
	// Size is how many there may be; 0: none is prepared.
	Size int
	// Idle is how long nobody may ask for one until their number falls.
	Idle time.Duration
}

// pool keeps shims whose sandboxes are built and wait for an execution. Each is
// used once. How many it keeps follows the demand: one at the beginning, twice as
// many after each request that found none, half after each idle time, and none in
// the end, or when several requests in a row wanted other sandboxes. A request that
// finds none starts a shim of its own.
type pool struct {
	s      *Supervisor
	limits PoolLimits
	wake   chan struct{} // one element: there is something to do
	done   chan struct{} // closed when fill has returned
	ending sync.WaitGroup

	mu    sync.Mutex
	ready []*ready // oldest first
	want  int
	asked time.Time // when last somebody took one
	unfit int       // so many in a row wanted another
	rest  time.Time // nothing is prepared before
	stats PoolStats
	age   int  // of the policy; a shim of an earlier one is not given away
	ended bool // nothing is prepared any more
}

// PoolStats count what became of requests and sandboxes.
type PoolStats struct {
	Ready int // wait now
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
}

func newPool(s *Supervisor, l PoolLimits) *pool {
	p := &pool{s: s, limits: l, want: min(1, l.Size), asked: time.Now(), wake: make(chan struct{}, 1), done: make(chan struct{})}
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
		for ctx.Err() == nil && p.lacks() {
			if err := p.prepare(ctx); err != nil {
				p.failed()
				if ctx.Err() == nil {
					p.s.daemon.log.Warn("prepare a sandbox", "error", err)
				}
				// A host that cannot is asked less and less often.
				pause = min(2*pause, time.Minute)
				p.pause(pause)
				break
			}
			pause = shortPause
		}
	}
}

func (p *pool) lacks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready) < p.want && !time.Now().Before(p.rest)
}

// prepare starts a shim and waits until its sandbox is built.
func (p *pool) prepare(ctx context.Context) error {
	p.mu.Lock()
	r := &ready{age: p.age}
	p.mu.Unlock()
	begun := time.Now()
	err := p.start(ctx, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.dismiss(r)
		return err
	}
	if p.ended || r.age != p.age {
		p.dismiss(r)
		return nil
	}
	p.ready = append(p.ready, r)
	p.stats.Prepared++
	p.stats.Spent += time.Since(begun)
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
	boot, err := p.s.template(id)
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

// template is the message for a sandbox that serves requests with the usual walls.
func (s *Supervisor) template(id string) (shimapi.Bootstrap, error) {
	owner := uint32(os.Geteuid())
	req, err := s.resolve(owner, &api.StartRequest{Request: []byte(`{"command":["true"]}`)})
	if err != nil {
		return shimapi.Bootstrap{}, err
	}
	boot := s.bootstrap(id, owner, req.Command)
	boot.Template, boot.Request = true, req.Encode()
	if len(boot.Request) > shimapi.RequestMax {
		return boot, fault.New(fault.OutOfRange, "prepare a sandbox", "the defaults are too long")
	}
	return boot, nil
}

// refillDelay is how long the next sandbox waits for the execution that took the last
// one to begin, which needs the processors more.
const refillDelay = 5 * time.Millisecond

// take gives a shim that waits away; nil: there is none.
func (p *pool) take() *ready {
	if p == nil || p.limits.Size == 0 {
		return nil
	}
	time.AfterFunc(refillDelay, p.poke)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = time.Now()
	var program unix.Stat_t
	if unix.Stat(p.s.shim, &program) != nil {
		return nil
	}
	for len(p.ready) > 0 {
		r := p.ready[0]
		p.ready = p.ready[1:]
		// After an upgrade the programs of the new build belong together.
		if r.age == p.age && r.program.Ino == program.Ino && r.program.Dev == program.Dev && r.program.Mtim == program.Mtim {
			return r
		}
		p.dismiss(r)
	}
	p.stats.Misses++
	p.want = min(max(2*p.want, 1), p.limits.Size)
	return nil
}

// unfitInARow is how many requests in a row may want other sandboxes than are ready
// until the pool rests: each has cost the preparation of one for nothing.
const unfitInARow = 8

// used takes note of whether an execution ran in the sandbox that it was given.
func (p *pool) used(fit bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fit {
		p.stats.Hits++
		p.unfit = 0
		return
	}
	p.stats.Unfit++
	if p.unfit++; p.unfit < unfitInARow {
		return
	}
	p.unfit = 0
	p.drop(len(p.ready))
	p.restFor(p.limits.Idle)
}

// pause lets nothing be prepared for a while.
func (p *pool) pause(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restFor(d)
}

func (p *pool) restFor(d time.Duration) {
	p.rest = time.Now().Add(d)
	time.AfterFunc(d, p.poke)
}

// shrink lets the number fall when nobody asked for the idle time.
func (p *pool) shrink() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.asked) < p.limits.Idle {
		return
	}
	p.want /= 2
	p.drop(len(p.ready) - p.want)
}

// renew replaces every sandbox, for what they were made by has changed.
func (p *pool) renew() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age++
	p.drop(len(p.ready))
	p.poke()
}

// drop dismisses the n oldest. p.mu is held.
func (p *pool) drop(n int) {
	for range n {
		p.dismiss(p.ready[0])
		p.ready = p.ready[1:]
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
	p.drop(len(p.ready))
	p.mu.Unlock()
	p.ending.Wait()
}

func (p *pool) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Failed++
}

// PoolStats tells of the sandboxes that a daemon prepares.
func (s *Supervisor) PoolStats() PoolStats {
	p := s.daemon.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.stats
	stats.Ready = len(p.ready)
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
