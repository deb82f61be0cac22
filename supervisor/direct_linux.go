package supervisor

import (
	"context"
	"io"
	"syscall"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
)

// followDirect takes what the shim sends until the response.
func (e *Execution) followDirect(ctx context.Context, st Streams) *spec.Response {
	// It tells the shim that the result is delivered.
	defer e.direct.Close()
	defer context.AfterFunc(ctx, func() { e.abandon(context.Background()) })()
	to := map[byte]io.Writer{shimapi.FrameStdout: st.Stdout, shimapi.FrameStderr: st.Stderr}
	for frames := shimapi.NewFrameReader(e.direct); ; {
		f, err := frames.Next()
		if err != nil {
			return e.lost(err)
		}
		if f.Kind == shimapi.FrameResponse {
			return e.read(f.Data)
		}
		// A writer that fails is not written to again; the execution goes on, and its
		// response has what was kept.
		if w := to[f.Kind]; w != nil {
			if _, err := w.Write(f.Data); err != nil {
				delete(to, f.Kind)
			}
		}
	}
}

// killDirect tells the shim of a signal, or to end everything. The write does not
// wait: the shim always reads.
func (e *Execution) killDirect(sig syscall.Signal, all bool) error {
	wish := byte(sig)
	if all {
		wish = shimapi.KillAll
	}
	_, err := e.direct.Write([]byte{wish})
	return err
}
