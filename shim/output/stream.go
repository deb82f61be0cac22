package output

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

const (
	// MaxLimit is the greatest Config.Limit in bytes.
	MaxLimit = 1 << 30
	// DefaultQuiet is the silence after which Drain gives up on writers that
	// outlive the payload. A filter such as tee in `cmd > >(tee log)` needs one
	// wake-up and one write, and a person does not notice 20 ms. It is a
	// compromise: on an overloaded 2-core machine `yes` left the pipe empty for
	// more than 10 ms, once for 180, in 0.5 to 2 % of the runs, and a CPU
	// quota may hold a process back for a period of 100 ms. A survivor's
	// last bytes are then lost; the payload's own never are. A caller to whom
	// they matter, or who sets a quota, chooses more than 100 ms.
	DefaultQuiet = 20 * time.Millisecond
	// DefaultMax bounds Drain when the surviving writers never fall silent.
	DefaultMax = 500 * time.Millisecond

	// firstRead must not be below PIPE_BUF (4096): a payload may put its end in
	// packet mode (O_DIRECT), where a shorter read loses the rest of a packet.
	firstRead = 4 << 10
	fullRead  = 64 << 10
	widePipe  = 256 << 10
	// flushAfter is how old a stream may be before its bytes go to the file.
	flushAfter = 100 * time.Millisecond
)

// Config says what to keep of a stream and where.
type Config struct {
	// Name is the file's name in Dir, "stdout" or "stderr". One path component, not empty.
	Name string
	// Dir is a descriptor of the execution's directory. It is borrowed and must
	// stay open until Close.
	Dir int
	// Limit is how many bytes are kept, 0..MaxLimit. It bounds neither what is
	// counted nor what subscribers get.
	Limit int64
	// Policy says what happens beyond Limit. No default: an unknown policy is refused.
	Policy spec.OutputPolicy
	// OnLimit is called once, under the policy kill, when more than Limit bytes
	// have been read. It runs on the reader's goroutine or inside Finish, must
	// not block and may call every method of the Stream. Nil: nobody is told.
	OnLimit func()
}

// Stream captures one output stream. All methods may be called concurrently.
type Stream struct {
	cfg  Config
	pipe *os.File
	raw  syscall.RawConn

	mu sync.Mutex
	// changed announces to subscribers that bytes came or the stream ended, and
	// to the reader that a subscriber took or left.
	changed sync.Cond
	store   store
	total   int64
	buf     []byte
	// live is the chunk read last; rest is what Finish found in the pipe while
	// subscribers were there.
	live, rest chunk
	subs       []*Subscription
	keptSubs   int // subscriptions of SubscribeKept
	// mover moves bytes from pipe to pipe; the reader waits as long as there is
	// one. unmovable: that does not work here.
	mover     *Subscription
	unmovable bool
	// ended: nothing more will be read, at end of file or after a read error.
	// frozen: Finish has run. closed: Close has run.
	ended, frozen, closed bool
	readErr               *fault.Fault
	limitHit, limitTold   bool
	wide                  bool
	clock                 clock
	discard               discarder
	// drained is made by Drain when it has to wait, and closed at the end.
	drained  chan struct{}
	lastByte time.Time
}

// Pipe makes the pipe of a stream: r for New, non-blocking; w for the payload,
// blocking. Both are close-on-exec and belong to the caller. The stream ends
// when every copy of w is closed, the caller's own included. E3004, or E2008 on
// a system without a capture.
func Pipe() (r, w int, err error) {
	r, w, err = makePipe()
	if err != nil {
		return -1, -1, fault.From(err, fault.OutputCapture)
	}
	return r, w, nil
}

// New captures what arrives at r, the read end from Pipe, and takes it over,
// also when it fails. Close gives everything back. Errors: E1001 for a bad name or policy,
// E1003 for a limit out of range, E3004 when r cannot be used.
func New(r int, cfg Config) (*Stream, error) {
	pipe := os.NewFile(uintptr(r), cfg.Name)
	if pipe == nil {
		return nil, fault.New(fault.OutputCapture, "capture "+cfg.Name, "the read end is not a descriptor")
	}
	if err := cfg.check(); err != nil {
		pipe.Close() // Nothing was read from it.
		return nil, err
	}
	raw, err := pipe.SyscallConn()
	if err != nil {
		pipe.Close() // Nothing was read from it.
		return nil, captureFault("capture", cfg.Name, err)
	}
	s := &Stream{cfg: cfg, pipe: pipe, raw: raw}
	s.changed.L = &s.mu
	s.clock.idle = true // the first bytes may come at any time
	s.store = store{dir: cfg.Dir, name: cfg.Name, limit: cfg.Limit, ring: cfg.Policy == spec.OutputTail}
	go s.read()
	return s, nil
}

// check refuses what the capture cannot do as asked.
func (c *Config) check() error {
	if c.Name == "" || c.Name == "." || c.Name == ".." || strings.ContainsAny(c.Name, "/\x00") {
		return fault.New(fault.InvalidValue, "capture output", "the name is not one path component").WithPath(c.Name)
	}
	if c.Limit < 0 || c.Limit > MaxLimit {
		return fault.New(fault.OutOfRange, "capture "+c.Name, "the limit is not within 0..1073741824").
			WithField("/resources/max_output_bytes")
	}
	switch c.Policy {
	case spec.OutputTruncate, spec.OutputTail, spec.OutputKill:
		return nil
	}
	return fault.New(fault.InvalidValue, "capture "+c.Name, "the policy is not truncate, tail or kill").
		WithField("/resources/output_policy")
}

// Counts tells how many bytes came and how many are kept. Final after Finish.
func (s *Stream) Counts() spec.StreamCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.store.kept()
	return spec.StreamCount{BytesTotal: s.total, BytesKept: kept, Truncated: kept < s.total}
}

// KeptEnd is the offset in the stream behind the last byte that is kept.
func (s *Stream) KeptEnd() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.start() + s.store.kept()
}

// Exceeded tells whether more than the limit came, whatever the policy.
func (s *Stream) Exceeded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total > s.cfg.Limit
}

// Err is the first fault (E3004) that made the capture keep or count less than
// it should; nil when all is well. Truncation by policy is not a fault.
func (s *Stream) Err() *fault.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store.err != nil {
		return s.store.err
	}
	return s.readErr
}

// captureFault wraps err as E3004 about the named file.
func captureFault(op, path string, err error) *fault.Fault {
	return fault.Wrap(fault.OutputCapture, op, err).WithPath(path)
}
