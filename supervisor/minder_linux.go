package supervisor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// Pauses between two attempts at something that is not ready.
const (
	shortPause = 2 * time.Millisecond
	longPause  = time.Second
)

// attachedPatience is how long callers that are attached may take for the last
// bytes of an execution that has ended.
const attachedPatience = 4 * time.Second

// minder follows one execution in a daemon: from the queue over its shim into
// the history. It holds nothing that is not on disk too.
type minder struct {
	s      *Supervisor
	rec    *shimapi.Record
	dir    layout.Dir
	lock   *os.File // of an execution whose shim is not started; the minder's own
	ticket *ticket
	ready  *ready // the shim that begins it; nil: a new one is started
	// recorded and request are the whole of what is recorded while that is at hand: an
	// execution that lives does not hold it when it is long. letGo alone changes them.
	recorded *shimapi.Record
	request  []byte

	started  chan struct{} // closed when the shim is started, or never will be
	answered chan struct{} // closed when document is set, if it ever is; at the latest with done
	done     chan struct{} // closed when response is set
	gone     chan struct{} // closed when the minder is done with the execution
	unwanted chan struct{} // closed by cancel
	ended    chan struct{} // closed when the shim is dead; nil: another supervisor started it
	response *spec.Response
	// unrecorded is the result of an execution that never ran, until it is written.
	unrecorded []byte

	once sync.Once
	mu   sync.Mutex
	conn *connection // guarded by mu; nil: none is open
	// document is the response as its shim has recorded and told it, guarded by mu; nil: it
	// is not fit to be passed on so, or no longer held.
	document []byte
	runs     time.Time // since when the command runs; guarded by mu; zero: nobody has looked, or it does not
}

// queued tells whether the execution waits for its turn.
func (m *minder) queued() bool {
	return m.ticket.waits() && !isClosed(m.started)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// cancel ends an execution that waits. One whose shim is started it does not
// touch; started is closed when it is known which of the two it was.
func (m *minder) cancel() { m.once.Do(func() { close(m.unwanted) }) }

// connection is the open one to the shim; nil: there is none.
func (m *minder) connection() *connection {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && !m.conn.open() {
		m.conn = nil
	}
	return m.conn
}

func (m *minder) connect(c *connection) *connection {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn = c
	return c
}

// run ends when the execution is in the history, or the supervisor closes.
func (m *minder) run() {
	defer m.s.daemon.minding.Done()
	defer close(m.gone)
	ctx := m.s.daemon.ctx
	if !isClosed(m.started) && !m.begin(ctx) {
		return
	}
	for pause := shortPause; ctx.Err() == nil; pause = min(2*pause, longPause) {
		// A shim that stays after its answer, for want of space for the result
		// perhaps, is asked less and less often.
		if told := isClosed(m.done); m.follow(ctx) && !told {
			pause = shortPause
			m.awaitEnd(ctx)
		}
		if m.settle() {
			m.s.daemon.forget(m.rec.ExecutionID)
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if c := m.connection(); c != nil {
		_ = c.Close() // the shim goes on
	}
}

// awaitEnd waits for the end of a shim that has answered, which gives back what it
// has first. One of another supervisor, or one that takes long, is asked for it.
func (m *minder) awaitEnd(ctx context.Context) {
	if m.ended == nil {
		return
	}
	late := time.NewTimer(longPause)
	defer late.Stop()
	select {
	case <-m.ended:
	case <-late.C:
	case <-ctx.Done():
	}
}

// begin waits for the execution's turn and starts its shim. It is false when
// the supervisor closes first; the next one finds the execution queued.
func (m *minder) begin(ctx context.Context) bool {
	defer close(m.started)
	defer m.lock.Close() // the shim has its own copy
	select {
	case <-m.ticket.Ready():
	case <-m.unwanted:
	case <-ctx.Done():
		m.ready.end() // the execution waits for the next supervisor
		return false
	}
	if isClosed(m.unwanted) { // of several that are ready select takes any
		m.ready.end()
		m.refuse(cancelledInQueue(m.rec))
		return true
	}
	if err := m.start(m.lock); err != nil {
		r := spec.Refused(m.rec.ExecutionID, err, m.rec.Created)
		r.Termination.Reason = spec.ReasonSetupFailed
		m.refuse(r)
		return true
	}
	m.s.emit(api.EventStarted, m.rec.ExecutionID, nil)
	return true
}

// start starts the shim, with the lock of the directory, which stays the caller's.
func (m *minder) start(lock *os.File) error {
	conn, process, err := m.s.startDetached(m.whole(), m.request, lock, m.ready)
	m.letGo()
	if err != nil {
		return err
	}
	m.connect(conn)
	ended := make(chan struct{})
	m.ended = ended
	go func() { // reaps it without holding a thread for as long as it lives
		<-conn.client.Ended()
		process.wait()
		close(ended)
	}()
	return nil
}

// restart starts a shim of its own for an execution that was given one that was ready,
// which died before it began: killed by the host for want of memory, perhaps, in an
// instant in which it could still be told. False: it was not so, or there is none.
func (m *minder) restart() bool {
	if m.ready == nil || isClosed(m.done) {
		return false
	}
	m.ready = nil
	lock, err := lockDead(m.dir, false)
	if err != nil {
		return false
	}
	defer lock.Close() // the shim has its own copy
	return waiting(m.dir) && m.start(lock) == nil
}

// shortRequest is how long a request may be, in bytes, that is held for as long as its
// execution lives.
const shortRequest = 4 << 10

// letGo drops what is long, or has stdin, which the history does not get. The directory has it.
func (m *minder) letGo() {
	m.mu.Lock() // for those who ask meanwhile
	defer m.mu.Unlock()
	if len(m.request) > shortRequest || m.recorded != nil && m.recorded.InlineStdin {
		m.recorded, m.request = nil, nil
	}
}

// whole is the record with the command, which policy is asked about.
func (m *minder) whole() *shimapi.Record {
	if m.recorded != nil {
		return m.recorded
	}
	rec := *m.rec
	if recorded, err := shimapi.ReadRecord(m.dir); err == nil { // else its shim says so
		rec.Command = recorded.Command
	}
	return &rec
}

// refuse ends an execution that never ran. It is written down before anybody is
// told: found waiting by the next supervisor, it would run after all.
func (m *minder) refuse(r *spec.Response) {
	m.unrecorded = r.Encode(false)
	m.record() // settle tries again
	m.finish(r)
}

// record writes the result of an execution that never ran; false: it cannot.
func (m *minder) record() bool {
	if m.unrecorded == nil {
		return true
	}
	if err := layout.WriteFile(m.dir.Result(), m.unrecorded); err != nil {
		m.s.daemon.log.Warn("record result", "execution_id", m.rec.ExecutionID, "error", err)
		return false
	}
	m.unrecorded = nil
	return true
}

// follow waits at the shim for the response, then for the end of the shim. It
// is false when no shim answers.
func (m *minder) follow(ctx context.Context) bool {
	c := m.connection()
	if c == nil {
		var err error
		if c, err = dial(m.dir); err != nil {
			return false
		}
		m.connect(c)
	}
	if m.rec.TimeoutMS > 0 {
		overdue := time.AfterFunc(m.s.latest(m.rec.TimeoutMS), m.kill)
		defer overdue.Stop()
	}
	answer, err := c.shim.Wait(ctx, &shimv1.WaitRequest{})
	if err != nil {
		_ = c.Close() // it is of no more use
		return false
	}
	failpoint.Here("supervisor.answered")
	data := answer.Response
	if len(data) == 0 {
		if data, err = readResult(m.dir); err != nil {
			// For want of descriptors, say. A verdict now would not be the one that
			// is collected later.
			m.s.daemon.log.Warn("read result", "execution_id", m.rec.ExecutionID, "error", err)
			_ = c.Close() // the shim need not wait
			return false
		}
	}
	if !isClosed(m.answered) {
		m.answer(data)
	}
	m.finish(decodeResult(m.rec.ExecutionID, m.rec.Created, data))
	failpoint.Here("supervisor.finished")
	// Whoever is attached gets the last bytes; the shim waits for us that long.
	c.retire()
	late := time.NewTimer(attachedPatience)
	defer late.Stop()
	select {
	case <-c.unused:
	case <-late.C:
	case <-c.client.Ended():
	case <-ctx.Done():
	}
	_ = c.Close() // the shim waits for it
	return true
}

// kill ends a shim that is overdue.
func (m *minder) kill() {
	m.s.daemon.log.Warn("the shim is overdue and is killed", "execution_id", m.rec.ExecutionID)
	killShim(m.dir)
}

// answer lets those have the document of a response who pass it on, before anything else
// is done with it.
func (m *minder) answer(document []byte) {
	if passable(m.rec.ExecutionID, document) {
		m.hold(document)
	}
	m.ticket.release() // whoever has the answer may want the next turn
	close(m.answered)
	runtime.Gosched() // to whoever waits; what comes now is for nobody in a hurry
}

// hold keeps a document, or with nil lets go of the one that is kept.
func (m *minder) hold(document []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.document = document
}

// held is the document, if it is kept.
func (m *minder) held() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.document
}

// passable tells whether a response can be passed on as it is: it is what this version
// of a shim encodes, is short, and has its output.
func passable(id string, document []byte) bool {
	return len(document) <= inlineOutput && bytes.HasPrefix(document, []byte(`{"execution_id":"`+id+`",`)) &&
		bytes.Contains(document, []byte(`,"stdout":"`)) // in a string it would have backslashes
}

// finish delivers the response, once.
func (m *minder) finish(r *spec.Response) {
	if isClosed(m.done) {
		return
	}
	m.response = r
	if m.ready != nil {
		_, fit := r.Metrics.StartupPhases["release"]
		_, other := r.Metrics.StartupPhases["clone"]
		m.s.daemon.pool.used(m.ready, fit, other)
	}
	close(m.done)
	if !isClosed(m.answered) {
		m.answer(nil)
	}
	if r.Termination.Reason == spec.ReasonShimLost {
		m.s.emit(api.EventLost, m.rec.ExecutionID, outcome(r))
	}
	m.s.emit(api.EventEnded, m.rec.ExecutionID, outcome(r))
}

// remembers is what need not be read for the history.
func (m *minder) remembers() remembered {
	has := remembered{rec: m.recorded, request: m.request}
	if isClosed(m.done) {
		has.response = m.response
	}
	return has
}

// settle moves an execution whose shim is gone into the history.
func (m *minder) settle() bool {
	id := m.rec.ExecutionID
	if !m.record() {
		return false
	}
	r, err := m.s.collect(id, false, m.remembers())
	switch {
	case errors.Is(err, errWaits) && m.restart():
		return false
	case errors.Is(err, errWaits):
		// Its turn has come, and its shim died before it began.
		m.refuse(spec.Lost(id, fault.New(fault.ShimLost, "start the execution", "its shim died before it began"), m.rec.Created))
		return false
	case errors.Is(err, errAlive):
		return false
	case errors.Is(err, os.ErrNotExist):
		// Another supervisor was quicker.
		if e, err := m.s.find(id); err != nil {
			r = spec.Lost(id, err, m.rec.Created)
		} else if r, err = m.s.response(e); err != nil {
			r = spec.Lost(id, err, m.rec.Created)
		}
	case err != nil:
		m.s.daemon.log.Warn("collect", "execution_id", id, "error", err)
		if r != nil {
			m.finish(r) // it is known, though not yet in the history
		}
		m.hold(nil) // that may take long, and the response is enough
		return false
	}
	m.finish(r)
	return true
}
