// Package shimapi is what a supervisor and a shim agree on besides the ttrpc
// service: how a shim is started.
package shimapi

import (
	"encoding/binary"
	"encoding/json"
	"io"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

// BootstrapVersion is the version of Bootstrap that this package speaks.
const BootstrapVersion = 4

// Window is how many messages of a stream may be under way unacknowledged. It
// is below the 64 that ttrpc holds for a receiver: one more, and a receiver that
// pauses for a second loses the stream. A receiver acknowledges half a window.
const Window = 32

// Descriptors of a shim besides 0, 1 and 2, which are its log.
const (
	// ConnectionFD is the supervisor's connection: the bootstrap message, then
	// ttrpc. It is all that a shim inherits, under the numbers 0 to LockFD, so
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
)

// Ready is the byte by which a shim says that it waits for its execution.
const Ready = 'R'

// Bootstrap is the first message that a supervisor gives to a shim, which may
// have been started before anybody knew what for: the lengths of two parts, four
// bytes each, the lowest first; this as JSON; and the request. With it come two
// descriptors: the locked directory of the execution and shim.log. A connection
// that ends before it ends the shim.
type Bootstrap struct {
	Version     int    `json:"version"`
	ExecutionID string `json:"execution_id"`
	// StateDir is the state directory; the execution's own lies in it.
	StateDir layout.State `json:"state_dir"`
	// Foreground ends the execution when the connection ends, and removes its
	// directory when the result is delivered. Without it the shim takes the
	// request from its directory and begins by itself, whatever becomes of its
	// starter, and leaves the directory with the result to whoever collects it.
	Foreground bool `json:"foreground"`
	// Request begins a foreground execution at once, as CreateRequest.request with
	// start does: a round trip less. At most RequestMax bytes; empty: Create comes.
	Request []byte `json:"-"`
	// Template makes the shim build a sandbox for Request in the directory of
	// ExecutionID, write Ready to the connection, and wait for another message
	// without descriptors: the execution that the sandbox is for. Its directory has
	// been given its name by then. It fits when it wants the same sandbox, else the
	// shim builds another. A connection that ends before that ends the shim, which
	// leaves nothing behind.
	Template bool `json:"template,omitempty"`
	// HoldStdout and HoldStderr keep the output of such an execution back from its
	// first byte on until an attachment with hold has come for it.
	HoldStdout bool `json:"hold_stdout,omitempty"`
	HoldStderr bool `json:"hold_stderr,omitempty"`
	// StreamStdin is CreateRequest.stream_stdin of an execution that begins by itself.
	StreamStdin bool `json:"stream_stdin,omitempty"`
	// OutputFiles: the supervisor takes large output from the files Stdout and
	// Stderr of the directory. The result then has none, though Output counts it.
	OutputFiles bool `json:"output_files,omitempty"`
	// TimelineMS is the time until the first point of the time line and between
	// two of them, in milliseconds. 0: the default; below 0: there is none.
	TimelineMS int64 `json:"timeline_ms,omitempty"`
	// SeccompHelper is the path of capsule-seccomp.
	SeccompHelper string `json:"seccomp_helper"`
	// Policy is what a configuration says; nil: the built-in rules alone.
	Policy *Policy `json:"policy,omitempty"`
}

// bootstrapMax bounds the JSON part of the message, RequestMax the request, in bytes.
const (
	bootstrapMax = 64 << 10
	RequestMax   = 32 << 10
)

// Encode is the message on the wire. Error: E1007 when the policy is too long.
func (b Bootstrap) Encode() ([]byte, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "encode bootstrap message", err)
	}
	if len(data) > bootstrapMax {
		return nil, fault.New(fault.ConfigFile, "encode bootstrap message", "the policy has more than 64 KiB of names and paths")
	}
	m := make([]byte, 0, 8+len(data)+len(b.Request))
	m = binary.LittleEndian.AppendUint32(m, uint32(len(data)))
	m = binary.LittleEndian.AppendUint32(m, uint32(len(b.Request)))
	return append(append(m, data...), b.Request...), nil
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
	n, request := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
	if n > bootstrapMax || request > RequestMax {
		return b, fault.New(fault.InvalidValue, "read bootstrap message", "it is too long")
	}
	data := make([]byte, n+request)
	_, err := io.ReadFull(r, data)
	if err == nil {
		err = json.Unmarshal(data[:n], &b)
	}
	if err != nil {
		return b, fault.Wrap(fault.InvalidValue, "read bootstrap message", err)
	}
	b.Request = data[n:]
	if b.Version != BootstrapVersion {
		return b, fault.New(fault.InvalidValue, "read bootstrap message", "unknown version").WithField("/version").
			WithHint("capsulectl, capsuled and capsule-shim must come from the same build.")
	}
	return b, nil
}
