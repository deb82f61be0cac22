package shim

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// cpuSample is how often the CPU time is read when it is limited. A payload
// can overrun its limit by this much on each core.
const cpuSample = 10 * time.Millisecond

// oomDelay is when the watch for kills of the OOM killer begins, and with it the
// time line: a payload that is quicker has ended by itself, and its verdict comes
// from the count.
const oomDelay = 5 * time.Millisecond

// quotaQuiet is output.DefaultQuiet for a payload with a CPU quota, which may
// have to wait for the next period of 100 ms before it can write.
const quotaQuiet = 150 * time.Millisecond

// setupTime bounds the set-up of the sandbox, a millisecond in general: a bind
// of a file system that does not answer must not hold everything up.
const setupTime = 20 * time.Second

// setupTimeMax bounds it for a sandbox with a small CPU quota, which holds for its
// set-up, too.
const setupTimeMax = 3 * time.Minute

// replacedTries is how often a sandbox is begun whose sources are replaced on the
// host meanwhile, as a package manager does with the cache of the loader.
const replacedTries = 10

// start clones the sandbox, waits until the command runs and leaves the rest
// to monitor.
func (e *execution) start() error {
	phase := "clone"
	if e.waiting != nil {
		phase = "release"
	}
	defer e.stdio.closePayloadEnds()
	sb, at, err := e.begin(phase)
	for tries := 1; tries < replacedTries && errors.Is(err, launch.ErrReplaced); tries++ {
		if err = e.prepare(); err == nil {
			sb, at, err = e.begin(phase)
		}
	}
	if err != nil {
		return err
	}
	e.clock.mark("sandbox")
	failpoint.Here("shim.start.running")
	e.sandbox, e.started = sb, at
	e.tellListener()
	return nil
}

// begin launches the sandbox and waits until the command runs.
func (e *execution) begin(phase string) (*launch.Sandbox, time.Duration, error) {
	sb, err := e.launch()
	if err != nil {
		return nil, 0, err
	}
	e.clock.mark(phase)
	failpoint.Here("shim.start.cloned")
	at, err := e.awaitCommand(sb)
	if err != nil {
		sb.Abandon()
	}
	return sb, at, err
}

// launch lets the sandbox begin that is ready, or clones it.
func (e *execution) launch() (*launch.Sandbox, error) {
	if e.waiting != nil {
		return e.release()
	}
	return e.ready.Start()
}

// awaitCommand waits until the command runs, for as long as somebody wants it
// and patience allows.
func (e *execution) awaitCommand(sb *launch.Sandbox) (time.Duration, error) {
	e.mu.Lock()
	e.born = sb
	unwanted := e.seen.cancelled
	e.mu.Unlock()
	if unwanted {
		return 0, cancelledEarly()
	}
	patience := e.patience()
	late := time.AfterFunc(patience, func() { _ = sb.Kill() }) // ESRCH: it has failed by itself
	at, err := sb.Started()
	e.mu.Lock()
	e.born = nil
	e.mu.Unlock()
	switch {
	case !late.Stop():
		return 0, fault.New(fault.SetupTimeout, "set up sandbox", "not done after "+patience.String()).
			WithHint("Look for a bind of a network or FUSE file system that does not answer.")
	case err != nil && e.observed().cancelled:
		return 0, cancelledEarly()
	}
	return at, err
}

// patience is how long the set-up may take: it works under the CPU quota already.
func (e *execution) patience() time.Duration {
	if q := e.req.Resources.CPUQuota; q != nil && *q < 1 {
		return min(time.Duration(float64(setupTime) / *q), setupTimeMax)
	}
	return setupTime
}

// run is the whole execution after create. It ends with the response written
// and nothing of the sandbox left.
func (e *execution) run() {
	err := e.observed().failure
	if err == nil && e.observed().cancelled {
		err = cancelledEarly()
	}
	if err == nil {
		err = e.start()
	}
	if err != nil {
		e.note(func(o *observation) { o.failure = err })
		e.measure() // the set-up may have met the memory limit
		close(e.running)
	} else {
		close(e.running)
		e.monitor()
	}
	failpoint.Here("shim.end.observed")
	e.finish()
	failpoint.Here("shim.end.recorded")
	close(e.ended)
	e.awaitDelivery()
	e.teardown()
	failpoint.Here("shim.end.torn_down")
	close(e.gone)
}

// deliveryTime is how long the teardown waits for the starter to have the answer and
// to pass it on. It would take the processor from both, and nobody waits for it.
const deliveryTime = 5 * time.Millisecond

// awaitDelivery returns when the starter has the answer, or is gone, or takes long.
func (e *execution) awaitDelivery() {
	late := time.NewTimer(deliveryTime)
	defer late.Stop()
	select {
	case <-e.lost:
	case <-late.C:
	}
}

// monitor waits for the end of the payload and keeps its deadlines.
func (e *execution) monitor() {
	if e.observed().cancelled {
		e.killTree() // cancelled while it was starting
	}
	deadline := time.AfterFunc(time.Duration(e.req.TimeoutMS)*time.Millisecond, e.onTimeout)
	defer deadline.Stop()
	stop := make(chan struct{})
	defer close(stop)
	if e.req.Resources.CPUTimeMS != nil && e.group != nil {
		go e.watchCPU(time.Duration(*e.req.Resources.CPUTimeMS)*time.Millisecond, stop)
	}
	if e.group != nil {
		watch := time.AfterFunc(oomDelay, func() {
			e.beginTimeline(stop)
			e.watchOOM(stop)
		})
		defer watch.Stop()
	}
	if e.sandbox.Notified() {
		e.answerDenials()
	}
	exit, err := e.sandbox.Exited()
	if e.bare != nil && err == nil {
		e.account(exit.Usage)
		exit.Alone = e.solitary()
	}
	if err != nil || !exit.Alone {
		e.answerDenials() // survivors may have something to say yet
	}
	if err == nil {
		e.note(func(o *observation) {
			o.exited, o.status, o.wall, o.full = true, exit.Status, exit.At-e.started, exit.Full
			// The clock may strike between the exit and its report.
			o.timeout = o.timeout && o.wall >= time.Duration(e.req.TimeoutMS)*time.Millisecond
		})
	} else if errors.Is(err, io.EOF) {
		// Process 1 was killed before it could report: by us, or out of memory.
		e.note(func(o *observation) { o.wall = monotonic() - e.started })
	} else {
		e.note(func(o *observation) { o.failure = err })
	}
	failpoint.Here("shim.end.exited")
	e.collect(err == nil && exit.Alone)
}

// collect takes what is left of the output, then ends the tree and reads the
// counters. Survivors of the payload get a short quiet time for last words; a
// payload that was alone leaves nothing to wait for.
func (e *execution) collect(alone bool) {
	quiet := output.DefaultQuiet
	if e.req.Resources.CPUQuota != nil {
		quiet = quotaQuiet
	}
	for _, s := range []*output.Stream{e.stdio.stdout, e.stdio.stderr} {
		alone = s.Drain(quiet, output.DefaultMax) && alone
	}
	if !alone {
		e.killTree()
		if e.group != nil {
			ctx, cancel := context.WithTimeout(context.Background(), teardownTime)
			defer cancel()
			if e.group.WaitEmpty(ctx) != nil {
				text := describe(e.processStates())
				e.note(func(o *observation) { o.unkilled = text })
			}
		}
	}
	for _, s := range []*output.Stream{e.stdio.stdout, e.stdio.stderr} {
		s.Finish()
	}
	e.measure()
}

// measure reads the counters of the kernel.
func (e *execution) measure() {
	if e.bare != nil && e.sandbox != nil {
		e.measureBare()
	}
	if e.group == nil {
		return
	}
	stats, err := e.group.Stats()
	pressure := e.pressure()
	e.note(func(o *observation) {
		o.stats, o.statsErr, o.pressure = stats, err, pressure
		o.initCounts = e.plan != nil && e.plan.HasInit
		if e.group.Confirmed[spec.LimitPids] {
			o.pidsLimit = e.req.Resources.MaxPids
		}
	})
}

// killTree ends every process of the sandbox: process 1, by which the kernel
// ends its pid namespace, and the cgroup, which also holds what hides.
func (e *execution) killTree() {
	_ = e.sandbox.Kill() // ESRCH: it is gone
	if e.bare != nil {
		e.killBare()
	}
	if e.group != nil {
		_ = e.group.Kill() // process 1's death kills the rest in any case
	}
}

// onTimeout asks the payload to end and, after the grace time, ends everything.
// A payload that has ended is in time, whatever its survivors do.
func (e *execution) onTimeout() {
	if breach.Of("deadline") {
		return
	}
	over := e.observed().exited
	var states map[string]int
	if !over {
		states = e.processStates()
	}
	e.note(func(o *observation) {
		over = o.exited
		o.timeout, o.states = !over, states
	})
	if !over {
		e.endGently()
	}
}

func (e *execution) endGently() {
	_ = e.sandbox.Signal(unix.SIGTERM) // ESRCH: it has just ended
	// A stopped process would sit out its grace without seeing the signal.
	_ = e.sandbox.Signal(unix.SIGCONT)
	time.AfterFunc(time.Duration(e.req.GraceMS)*time.Millisecond, func() {
		if !isClosed(e.ended) {
			e.killTree()
		}
	})
}

func (e *execution) onOutputLimit() {
	e.note(func(o *observation) { o.outputLimit = true })
	go func() {
		// A quick command has written too much before its start is known.
		<-e.running
		if e.sandbox != nil {
			e.killTree()
		}
	}()
}

// watchCPU ends the execution when its tree has used up its CPU time, counted
// by the cgroup, children that were reaped long ago included.
func (e *execution) watchCPU(limit time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(cpuSample)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if used := cpuOf(e.group); used != nil && *used > limit {
			e.note(func(o *observation) { o.cpuTime = !o.exited })
			e.killTree()
			return
		}
	}
}

func cpuOf(g *cgroup.Group) *time.Duration {
	s, err := g.Stats()
	if err != nil {
		return nil
	}
	return s.CPU
}

// cancel ends everything at a caller's wish, or because the caller is gone.
func (e *execution) cancel() {
	e.note(func(o *observation) {
		o.cancelled = o.cancelled || !o.exited && !isClosed(e.ended)
		if e.born != nil {
			_ = e.born.Kill() // ESRCH: its set-up has failed
		}
	})
	select {
	case <-e.running:
		if e.sandbox != nil && !isClosed(e.ended) {
			e.killTree()
		}
	default:
		// monitor looks when the command runs.
	}
}

// signal gives a caller's signal to the command and tells whether it got it. One
// that comes while the sandbox is made is not lost, unless its caller is.
func (e *execution) signal(sig syscall.Signal, callerGone <-chan struct{}) bool {
	select {
	case <-e.running:
	case <-e.gone:
	case <-callerGone:
		return false
	}
	if e.sandbox == nil || isClosed(e.ended) {
		return false
	}
	e.note(func(o *observation) { o.callerSignal = sig })
	return e.sandbox.Signal(sig) == nil
}

func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return time.Duration(ts.Nano())
}

// teardown releases everything that create and start acquired, in reverse, and
// leaves what it could not in left.
func (e *execution) teardown() {
	var errs []error
	if e.sandbox != nil {
		_ = e.sandbox.Kill() // ESRCH: it is gone, which is the common case
		if e.bare != nil {
			e.killBare()
		}
		_, err := e.sandbox.Reap()
		errs = append(errs, err)
	}
	if e.waiting != nil {
		e.waiting.Abandon() // its execution failed before it began
	}
	if e.ready != nil {
		e.ready.Close()
	}
	errs = append(errs, e.spare.discard())
	if e.givenUp != nil {
		errs = append(errs, <-e.givenUp)
	}
	failpoint.Here("shim.end.reaped")
	e.stdio.close()
	if e.group != nil {
		errs = append(errs, endGroup(e.group))
	}
	if e.slot != nil {
		_ = e.slot.Close() // the lock ends with it
	}
	if e.bare != nil {
		errs = append(errs, os.RemoveAll(e.bare.home))
	}
	if e.left = errors.Join(errs...); e.left != nil {
		logLine("clean up: " + e.left.Error())
	}
}

// endGroup ends what is in a group and removes it.
func endGroup(g *cgroup.Group) error {
	ctx, cancel := context.WithTimeout(context.Background(), teardownTime)
	defer cancel()
	return g.End(ctx)
}
