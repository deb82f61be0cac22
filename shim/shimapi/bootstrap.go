// Package shimapi is what a supervisor and a shim agree on besides the ttrpc
// service: how a shim is started.
package shimapi

import (
	"encoding/binary"
	"io"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

// TimelineMS is the default of Bootstrap.TimelineMS. What ends before the first point
// costs nothing.
const TimelineMS = 100

// BootstrapVersion is the version of Bootstrap that this package speaks.
const BootstrapVersion = 6

// Window is how many messages of a stream may be under way unacknowledged. It
// is below the 64 that ttrpc holds for a receiver: one more, and a receiver that
// pauses for a second loses the stream. A receiver acknowledges half a window.
const Window = 32

// Descriptors of a shim besides 0, 1 and 2, which are its log.
const (
	// ConnectionFD is the supervisor's connection: the bootstrap message, then
	// ttrpc or frames. It is all that a shim inherits, under the numbers 0 to LockFD, so
	// that nothing else takes those.
	ConnectionFD = 3
	// LockFD is the locked directory of the execution. The lock ends with the
	// shim, which is how others see that it is gone.
	LockFD = 4
)

// Environment is the whole environment of a shim. It lives for one execution and
// holds a few megabytes: collecting garbage before there are dozens would cost
// more than it frees.
const (
	EnvironmentGC     = "GOGC=off"
	EnvironmentMemory = "GOMEMLIMIT=48MiB"
	EnvironmentPath   = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
	// EnvironmentDaemon is added by a daemon, whose shims are many: a second processor
	// makes a single start 8 % quicker, and costs each shim a quarter of a megabyte for as
	// long as it lives.
	EnvironmentDaemon = "GOMAXPROCS=1"
)

// TimerSlack is the timer slack with which a shim is started, in nanoseconds: by how much
// the kernel may delay a timer. Go's monitor thread sleeps for 20 microseconds at a time as
// long as there is work, which with the usual 50 is a hundred times in an execution, and
// with this half of that. The sandbox does not inherit it.
const TimerSlack = 500_000

// Ready is the byte by which a shim says that it waits for its execution. Anything
// else that it writes before is why it does not, and it ends.
const Ready = 'R'

// Bootstrap is the first message that a supervisor gives to a shim, which may
// have been started before anybody knew what for: the version and the length of
// what follows; the flags; the time line's interval; id, directory, helper and
// policy, each behind its length; the request. The interval has eight bytes, other
// numbers four, the lowest first. The policy is a message of runtime/wire. JSON,
// whose decoder takes as long to be ready for use as all else, has no place in it. With it come two descriptors: the locked
// directory of the execution and shim.log. A connection that ends before it ends
// the shim.
type Bootstrap struct {
	Version     int
	ExecutionID string
	// StateDir is the state directory; the execution's own lies in it.
	StateDir layout.State
	// Foreground ends the execution when the connection ends, and removes its
	// directory when the result is delivered. Without it the shim begins by itself,
	// whatever becomes of its starter, and leaves the directory with the result to
	// whoever collects it.
	Foreground bool
	// Request begins a foreground execution at once, as CreateRequest.request with
	// start does: a round trip less. At most RequestMax bytes; empty: Create comes. An
	// execution that begins by itself takes it from its directory then.
	Request []byte
	// Template makes the shim build a sandbox for Request in the directory of
	// ExecutionID, write Ready to the connection, and wait for another message
	// without descriptors: the execution that the sandbox is for. Its directory has
	// been given its name by then. It fits when it wants the same sandbox, else the
	// shim builds another. A connection that ends before that ends the shim, which
	// leaves nothing behind.
	Template bool
	// HoldStdout and HoldStderr keep the output back from its first byte on until an
	// attachment with hold has come for it; without Foreground for ten seconds at most.
	HoldStdout bool
	HoldStderr bool
	// Direct makes the rest of the connection of a foreground execution with a
	// Request one of frames (see Frame) in place of ttrpc: a quick command ends before
	// ttrpc and its messages are ready for use. The output whose hold is asked for
	// comes by itself, then the response.
	Direct bool
	// StreamStdin is CreateRequest.stream_stdin of an execution that begins by itself.
	StreamStdin bool
	// OutputFiles: the supervisor takes large output from the files Stdout and
	// Stderr of the directory. The result then has none, though Output counts it.
	OutputFiles bool
	// TimelineMS is the time until the first point of the time line and between
	// two of them, in milliseconds. 0: the constant TimelineMS; below 0: there is none.
	TimelineMS int64
	// SeccompHelper is the path of capsule-seccomp.
	SeccompHelper string
	// Policy is what a configuration says; nil: the built-in rules alone.
	Policy *Policy
}

// bootstrapMax bounds the message without the request, RequestMax the request, in bytes.
const (
	bootstrapMax = 64 << 10
	RequestMax   = 32 << 10
)

// flags are the booleans in the order of their bits.
func (b *Bootstrap) flags() []*bool {
	return []*bool{&b.Foreground, &b.Template, &b.HoldStdout, &b.HoldStderr, &b.Direct, &b.StreamStdin, &b.OutputFiles}
}

// Encode is the message on the wire. Error: E1007 when the policy is too long.
func (b Bootstrap) Encode() ([]byte, error) {
	policy := b.Policy.encode()
	var flags uint32
	for bit, set := range b.flags() {
		if *set {
			flags |= 1 << bit
		}
	}
	m := make([]byte, 8, 512+len(policy)+len(b.Request))
	m = binary.LittleEndian.AppendUint32(m, flags)
	m = binary.LittleEndian.AppendUint64(m, uint64(b.TimelineMS))
	for _, part := range []string{b.ExecutionID, string(b.StateDir), b.SeccompHelper, string(policy)} {
		m = binary.LittleEndian.AppendUint32(m, uint32(len(part)))
		m = append(m, part...)
	}
	if len(m) > bootstrapMax {
		return nil, fault.New(fault.ConfigFile, "encode bootstrap message", "the policy has more than 64 KiB of names and paths")
	}
	m = append(m, b.Request...)
	binary.LittleEndian.PutUint32(m, uint32(b.Version))
	binary.LittleEndian.PutUint32(m[4:], uint32(len(m)-8))
	return m, nil
}

// ReadBootstrap reads the message. io.EOF: the connection ended before it.
func ReadBootstrap(r io.Reader) (Bootstrap, error) {
	var b Bootstrap
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err == io.EOF {
		return b, err
	} else if err != nil {
		return b, fault.Wrap(fault.InvalidValue, "read bootstrap message", err)
	}
	if b.Version = int(binary.LittleEndian.Uint32(head[:])); b.Version != BootstrapVersion {
		return b, fault.New(fault.InvalidValue, "read bootstrap message", "unknown version").WithField("/version").
			WithHint("capsulectl, capsuled and capsule-shim must come from the same build.")
	}
	n := binary.LittleEndian.Uint32(head[4:])
	if n > bootstrapMax+RequestMax {
		return b, fault.New(fault.InvalidValue, "read bootstrap message", "it is too long")
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return b, fault.Wrap(fault.InvalidValue, "read bootstrap message", err)
	}
	return b, b.decode(data)
}

// decode takes what is behind the head.
func (b *Bootstrap) decode(data []byte) error {
	short := func() error { return fault.New(fault.InvalidValue, "read bootstrap message", "it is too short") }
	if len(data) < 12 {
		return short()
	}
	flags := binary.LittleEndian.Uint32(data)
	for bit, set := range b.flags() {
		*set = flags&(1<<bit) != 0
	}
	b.TimelineMS = int64(binary.LittleEndian.Uint64(data[4:]))
	data = data[12:]
	var parts [4][]byte
	for i := range parts {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			return short()
		}
		end := 4 + binary.LittleEndian.Uint32(data)
		parts[i], data = data[4:end], data[end:]
	}
	b.ExecutionID, b.StateDir, b.SeccompHelper, b.Request = string(parts[0]), layout.State(parts[1]), string(parts[2]), data
	var err error
	b.Policy, err = readPolicy(parts[3])
	return err
}
