// Package shimapi is what a supervisor and a shim agree on besides the ttrpc
// service: how a shim is started.
package shimapi

import (
	"encoding/json"
	"io"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

// BootstrapVersion is the version of Bootstrap that this package speaks.
const BootstrapVersion = 2

// MaxBootstrap bounds the message: a pipe that nobody reads yet holds that much.
const MaxBootstrap = 64 << 10

// Window is how many messages of a stream may be under way unacknowledged. It
// is below the 64 that ttrpc holds for a receiver: one more, and a receiver that
// pauses for a second loses the stream. A receiver acknowledges half a window.
const Window = 32

// Descriptors that a shim inherits besides 0, 1 and 2.
const (
	// ConnectionFD is the supervisor's ttrpc connection.
	ConnectionFD = 3
	// LockFD is the locked directory of the execution. The lock ends with the
	// shim, which is how others see that it is gone.
	LockFD = 4
)

// Bootstrap is the one message that a supervisor gives to a new shim, as JSON
// on descriptor 0.
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
	// StreamStdin is CreateRequest.stream_stdin of an execution that begins by itself.
	StreamStdin bool `json:"stream_stdin,omitempty"`
	// OutputFiles: the supervisor takes large output from the files Stdout and
	// Stderr of the directory. The result then has none, though Output counts it.
	OutputFiles bool `json:"output_files,omitempty"`
	// SeccompHelper is the path of capsule-seccomp.
	SeccompHelper string `json:"seccomp_helper"`
	// Policy is what a configuration says; nil: the built-in rules alone.
	Policy *Policy `json:"policy,omitempty"`
}

// Encode is the message on the wire.
func (b Bootstrap) Encode() ([]byte, error) { return json.Marshal(b) }

// ReadBootstrap reads the message to the end of r.
func ReadBootstrap(r io.Reader) (Bootstrap, error) {
	var b Bootstrap
	data, err := io.ReadAll(io.LimitReader(r, MaxBootstrap))
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		return b, fault.Wrap(fault.InvalidValue, "read bootstrap message", err)
	}
	if b.Version != BootstrapVersion {
		return b, fault.New(fault.InvalidValue, "read bootstrap message", "unknown version").WithField("/version").
			WithHint("capsulectl, capsuled and capsule-shim must come from the same build.")
	}
	return b, nil
}
