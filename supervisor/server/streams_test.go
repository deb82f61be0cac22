package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// eventually waits for a state that nothing announces.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestAttachBothWays(t *testing.T) {
	f := newFake()
	// cat, with a word on the other stream and a hole in this one.
	f.attach = func(_ context.Context, _ string, o *api.AttachOptions) error {
		o.Missed("stdout", 10)
		if _, err := io.Copy(o.Stdout, o.Stdin); err != nil {
			return err
		}
		_, err := o.Stderr.Write([]byte("done"))
		return err
	}
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	in := bytes.Repeat([]byte("0123456789"), 1<<20)
	var out, errs bytes.Buffer
	missed := int64(0)
	err := c.Attach(within(t), e.ID, &api.AttachOptions{
		Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &errs, StdoutOffset: 5, StderrOffset: 6, Hold: true,
		Missed: func(stream string, n int64) {
			if stream != "stdout" {
				t.Errorf("%d bytes of %s are missing", n, stream)
			}
			missed += n
		},
	})
	if err != nil || !bytes.Equal(out.Bytes(), in) || errs.String() != "done" || missed != 10 {
		t.Errorf("%d bytes, %q, %d missed, %v", out.Len(), errs.String(), missed, err)
	}
	o := f.last("Attach").(api.AttachOptions)
	if o.StdoutOffset != 5 || o.StderrOffset != 6 || !o.Hold || o.NoFollow {
		t.Errorf("%+v", o)
	}
}

func TestAttachSomeStreams(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	var out bytes.Buffer
	if err := c.Attach(within(t), e.ID, &api.AttachOptions{Stderr: &out, NoFollow: true, StderrOffset: 4}); err != nil || out.String() != "ful\n" {
		t.Errorf("%q %v", out.String(), err)
	}
	if o := f.last("Attach").(api.AttachOptions); o.Stdout != nil || !o.NoFollow {
		t.Errorf("%+v", o)
	}
	if err := c.Attach(within(t), e.ID, &api.AttachOptions{}); err != nil {
		t.Error(err)
	}
	if o := f.last("Attach").(api.AttachOptions); o.Stdout != nil || o.Stderr != nil {
		t.Errorf("%+v", o)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestSlowReader shows that a reader who does not read stops its own attach
// after a window, and nothing else on the same connection.
func TestSlowReader(t *testing.T) {
	f := newFake()
	var sent atomic.Int64
	f.attach = func(_ context.Context, _ string, o *api.AttachOptions) error {
		block := make([]byte, wire.Chunk)
		for range 200 {
			if _, err := o.Stdout.Write(block); err != nil {
				return err
			}
			sent.Add(1)
		}
		return nil
	}
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	read := make(chan struct{})
	got := int64(0)
	slow := writerFunc(func(p []byte) (int, error) {
		<-read
		got += int64(len(p))
		return len(p), nil
	})
	done := make(chan error, 1)
	go func() { done <- c.Attach(within(t), e.ID, &api.AttachOptions{Stdout: slow}) }()
	eventually(t, "a window is full", func() bool { return sent.Load() == wire.Window })
	// After a second ttrpc would give up a stream on which more is under way.
	for begin := time.Now(); time.Since(begin) < 1500*time.Millisecond; {
		if _, _, err := c.Health(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := sent.Load(); n != wire.Window {
		t.Errorf("%d messages are under way", n)
	}
	close(read)
	if err := <-done; err != nil || got != 200*wire.Chunk {
		t.Error(got, err)
	}
}

func TestAWriterThatFailsIsLeftAlone(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	var errs bytes.Buffer
	bad := writerFunc(func([]byte) (int, error) { return 0, io.ErrShortWrite })
	if err := c.Attach(within(t), e.ID, &api.AttachOptions{Stdout: bad, Stderr: &errs}); err != nil || errs.String() != "careful\n" {
		t.Error(errs.String(), err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// endless writes until it cannot.
func endless(ctx context.Context, _ string, o *api.AttachOptions) error {
	if o.Stdin != nil {
		go func() { _, _ = io.Copy(io.Discard, o.Stdin) }()
	}
	for {
		if _, err := o.Stdout.Write([]byte("y\n")); err != nil {
			return err
		}
	}
}

// TestAbort attaches and goes away, a thousand times: half of them by ctx, on
// one connection, the others by ending the connection.
func TestAbort(t *testing.T) {
	f := newFake()
	f.attach = endless
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	goroutines, files := 0, 0
	for i := range 1000 {
		if i == 10 {
			f.detached()
			goroutines, files = runtime.NumGoroutine(), descriptors(t)
		}
		own := c
		if i%2 == 1 {
			own = dial(t, address)
		}
		ctx, cancel := context.WithCancel(within(t))
		seen := make(chan struct{}, 1)
		w := writerFunc(func(p []byte) (int, error) {
			select {
			case seen <- struct{}{}:
			default:
			}
			return len(p), nil
		})
		in, feeder := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- own.Attach(ctx, e.ID, &api.AttachOptions{Stdin: in, Stdout: w}) }()
		<-seen
		code := fault.Cancelled
		if i%2 == 1 {
			code = fault.Unreachable
			_ = own.Close()
		} else {
			cancel()
		}
		if err := <-done; !errors.Is(err, &fault.Fault{Code: code}) {
			t.Fatal(i, err)
		}
		_ = feeder.Close()
		cancel()
	}
	f.detached()
	eventually(t, "goroutines are gone", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
	eventually(t, "descriptors are gone", func() bool { return descriptors(t) <= files+2 })
}

func TestCancelledWaitEndsOnTheServer(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	before := runtime.NumGoroutine()
	for range 100 {
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan error, 1)
		go func() { _, err := c.Wait(ctx, e.ID); done <- err }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, &fault.Fault{Code: fault.Cancelled}) {
			t.Fatal(err)
		}
	}
	eventually(t, "goroutines are gone", func() bool { return runtime.NumGoroutine() <= before+3 })
	f.end(e.ID)
	if _, err := c.Wait(within(t), e.ID); err != nil {
		t.Error(err)
	}
}

func TestEventsEndWithTheCaller(t *testing.T) {
	f := newFake()
	ended := make(chan struct{})
	f.events = func(ctx context.Context, tell func(api.Event) error) error {
		defer close(ended)
		if err := tell(api.Event{Sequence: 1}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	ctx, cancel := context.WithCancel(within(t))
	err := c.Events(ctx, 0, true, func(api.Event) error { cancel(); return nil })
	if !errors.Is(err, &fault.Fault{Code: fault.Cancelled}) {
		t.Error(err)
	}
	<-ended
}
