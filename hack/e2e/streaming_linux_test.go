package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
	"github.com/capsule-run/capsule/supervisor/server"
)

// numbers is what `seq 1 n` prints, far more than is kept.
func numbers(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintln(&b, i+1)
	}
	return b.Bytes()
}

// served starts a daemon with a socket, and connects to it.
func (h *house) served() *client.Client {
	h.Helper()
	s, _ := h.daemon(admission.Limits{})
	l, err := net.Listen("unix", filepath.Join(h.state, "test.sock"))
	if err != nil {
		h.Fatal(err)
	}
	srv := server.New(server.Options{Supervisor: s.As})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), l) }()
	h.Cleanup(func() {
		if err := srv.Close(); err != nil {
			h.Error(err)
		}
		if err := <-done; err != nil {
			h.Error(err)
		}
		if err := s.Close(); err != nil {
			h.Error(err)
		}
	})
	return h.dial(l.Addr().String())
}

func (h *house) dial(address string) *client.Client {
	h.Helper()
	c, err := client.Dial(h.ctx, address)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = c.Close() }) // nothing is under way
	return c
}

// pipesOpen is how many descriptors of pipes this process has, which is daemon and
// client in one.
func pipesOpen(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// goneWithPipes waits until every execution is collected and no pipe more than
// before is open.
func (h *house) goneWithPipes(before int) {
	h.Helper()
	h.eventually("the execution is collected", func() bool {
		left, err := filepath.Glob(h.state + "/executions/*")
		return err == nil && len(left) == 0
	})
	h.eventually("the pipes are closed", func() bool { return pipesOpen(h.T) <= before })
}

// piped is a writer that counts and compares, and that knows whether the process
// has had a pipe more than before.
type piped struct {
	t      *testing.T
	want   []byte
	at     int
	before int
	came   bool
	each   func(at int) // nil: nothing
}

// Write implements io.Writer.
func (p *piped) Write(data []byte) (int, error) {
	if !bytes.HasPrefix(p.want[min(p.at, len(p.want)):], data) {
		p.t.Fatalf("%d bytes at %d are not those that were written", len(data), p.at)
	}
	p.at += len(data)
	p.came = p.came || p.at > 2<<20 && pipesOpen(p.t) > p.before
	if p.each != nil {
		p.each(p.at)
	}
	return len(data), nil
}

// TestStreamedOutput wants every byte of long output on two streams at once at a
// client, most of them by a pipe that no daemon is in, and nothing left of it.
func TestStreamedOutput(t *testing.T) {
	h := openHouse(t)
	c := h.served()
	const n = 2_000_000
	want := numbers(n)
	before := pipesOpen(t)
	script := fmt.Sprintf("read x; seq 1 %d & seq 1 %d >&2; wait", n, n)
	id := h.start(c, &api.StartRequest{StreamStdin: true}, "sh", "-c", script).ID
	out, errs := &piped{t: t, want: want, before: before}, &piped{t: t, want: want, before: before}
	err := c.Attach(h.ctx, id, &api.AttachOptions{
		Stdin: strings.NewReader("go\n"), Stdout: out, Stderr: errs, Hold: true,
		Missed: func(stream string, n int64) { t.Errorf("%d bytes of %s are missing", n, stream) },
	})
	if err != nil || out.at != len(want) || errs.at != len(want) {
		t.Errorf("%d and %d bytes of %d, %v", out.at, errs.at, len(want), err)
	}
	if !out.came || !errs.came {
		t.Error("there was no pipe")
	}
	r := h.wait(c, id)
	if r.Status != spec.StatusSuccess || r.Output.Stdout.BytesTotal != int64(len(want)) || r.Output.Stderr.BytesTotal != int64(len(want)) {
		t.Errorf("response %s", r.Encode(true))
	}
	h.goneWithPipes(before)
}

// TestStreamedOutputAgain has a client leave in the middle of a pipe. The command
// goes on without it, and it comes again at the byte where it was: what was not kept
// meanwhile it is told to have missed.
func TestStreamedOutputAgain(t *testing.T) {
	h := openHouse(t)
	c := h.served()
	const n = 2_000_000
	want := numbers(n)
	before := pipesOpen(t)
	id := h.start(c, &api.StartRequest{StreamStdin: true}, "sh", "-c", fmt.Sprintf("read x; seq 1 %d; read y; echo last", n)).ID
	ctx, leave := context.WithCancel(h.ctx)
	defer leave()
	out := &piped{t: t, want: append(want, "last\n"...), before: before}
	out.each = func(at int) {
		if at > 4<<20 {
			leave()
		}
	}
	in, write := io.Pipe()
	go func() { _, _ = io.WriteString(write, "go\n") }() // ends with in
	err := c.Attach(ctx, id, &api.AttachOptions{Stdin: in, Stdout: out, Hold: true})
	in.Close()
	if err == nil || !out.came {
		t.Fatalf("at %d of %d: %v, pipe: %v", out.at, len(want), err, out.came)
	}
	out.each = nil
	missed := 0
	err = c.Attach(h.ctx, id, &api.AttachOptions{
		Stdin: strings.NewReader("go on\n"), Stdout: out, StdoutOffset: int64(out.at), Hold: true,
		Missed: func(_ string, n int64) { missed += int(n); out.at += int(n) },
	})
	if err != nil || out.at != len(out.want) {
		t.Errorf("at %d of %d, of which %d are missing: %v", out.at, len(out.want), missed, err)
	}
	if r := h.wait(c, id); r.Status != spec.StatusSuccess || r.Output.Stdout.BytesTotal != int64(len(out.want)) {
		t.Errorf("response %s", r.Encode(true))
	}
	h.goneWithPipes(before)
}

// TestStreamedOutputOfKilled kills a command whose output nobody takes from its
// pipe: neither its end nor that of its client waits.
func TestStreamedOutputOfKilled(t *testing.T) {
	h := openHouse(t)
	c := h.served()
	before := pipesOpen(t)
	id := h.start(c, &api.StartRequest{}, "sh", "-c", "sleep 1 & exec yes").ID
	full, taken := make(chan struct{}), make(chan struct{})
	got := 0
	slow := writerFunc(func(p []byte) (int, error) {
		if got += len(p); got > 2<<20 && full != nil {
			close(full)
			full = nil
			<-taken
		}
		return len(p), nil
	})
	done := make(chan error, 1)
	stuck := full
	missed := int64(0)
	go func() {
		done <- c.Attach(h.ctx, id, &api.AttachOptions{Stdout: slow, Hold: true, Missed: func(_ string, n int64) { missed += n }})
	}()
	<-stuck
	if _, err := c.Kill(h.ctx, id, 0, true); err != nil {
		t.Fatal(err)
	}
	r := h.wait(c, id)
	close(taken)
	if err := <-done; err != nil || r.Status != spec.StatusKilled || r.Output.Stdout.BytesTotal != int64(got)+missed {
		t.Errorf("%d bytes and %d missing, %v, response %s", got, missed, err, r.Encode(true))
	}
	h.goneWithPipes(before)
}
