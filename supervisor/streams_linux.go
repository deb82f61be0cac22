package supervisor

import (
	"context"
	"io"
	"sync"

	"github.com/capsule-run/capsule/shim/shimapi"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
)

// attach streams the execution's output and input.
func (e *Execution) attach(ctx context.Context, st Streams, wg *sync.WaitGroup) error {
	if st.Stdin != nil {
		in, err := e.shim.WriteStdin(ctx, nil, 2*shimapi.Window)
		if err != nil {
			return err
		}
		go sendStdin(in, st.Stdin)
	}
	if st.Stdout == nil && st.Stderr == nil {
		return nil
	}
	to := map[shimv1.Stream]io.Writer{}
	req := &shimv1.AttachRequest{Hold: true}
	for id, w := range map[shimv1.Stream]io.Writer{shimv1.Stream_STREAM_STDOUT: st.Stdout, shimv1.Stream_STREAM_STDERR: st.Stderr} {
		if w != nil {
			to[id] = w
			req.Streams = append(req.Streams, id)
		}
	}
	out, err := e.shim.Attach(ctx, nil, 2*shimapi.Window)
	if err == nil {
		err = out.Send(req)
	}
	if err != nil {
		return err
	}
	wg.Go(func() { receive(out, to, len(to)) })
	return nil
}

// receive copies output until it ends. A writer that fails is not written to
// again; the execution goes on, and its response has what was kept.
func receive(from shimv1.ShimAttach, to map[shimv1.Stream]io.Writer, open int) {
	taken := int32(0)
	for {
		m, err := from.Recv()
		if err != nil {
			return // io.EOF, or the shim is lost, which Wait tells
		}
		if len(m.Data) == 0 {
			if open--; open == 0 {
				from.CloseSend() // a lost shim is told by Recv
			}
			continue
		}
		if w := to[m.Stream]; w != nil {
			if _, err := w.Write(m.Data); err != nil {
				delete(to, m.Stream)
			}
		}
		if taken++; taken == shimapi.Window/2 {
			_ = from.Send(&shimv1.AttachRequest{Acknowledged: taken}) // a lost shim is told by Recv
			taken = 0
		}
	}
}

// sendStdin copies input until either side ends, within the window.
func sendStdin(to shimv1.ShimWriteStdin, from io.Reader) {
	buf := make([]byte, 32<<10)
	for open := int32(0); ; {
		for open >= shimapi.Window {
			m, err := to.Recv()
			if err != nil {
				return // the shim takes no more, or is lost, which Wait tells
			}
			open -= m.Acknowledged
		}
		n, err := from.Read(buf)
		if n > 0 {
			if err := to.Send(&shimv1.WriteStdinRequest{Data: buf[:n]}); err != nil {
				return
			}
			open++
		}
		if err != nil {
			to.CloseSend() // a lost shim is told by Wait
			return
		}
	}
}
