package output

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// pipeTo passes a new subscription into a pipe. What arrives there and what PipeTo
// returned come when both have ended.
func pipeTo(t *testing.T, b *Subscription) (r *os.File, result <-chan error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := b.PipeTo(w)
		b.Close()
		w.Close() // A pipe.
		ended <- err
	}()
	t.Cleanup(func() { r.Close() }) // Often closed already.
	return r, ended
}

// moving waits, without sleeping, until a subscription moves bytes.
func (c *capture) moving() {
	for {
		c.mu.Lock()
		moves := c.mover != nil
		c.mu.Unlock()
		if moves {
			return
		}
		syscall.Getpid() // as long as the others take; a scheduling point
	}
}

// TestPipeToLosesNothing: what is kept, what is read and what is moved arrive in
// their order, under every policy.
func TestPipeToLosesNothing(t *testing.T) {
	leakCheck(t)
	for _, policy := range []spec.OutputPolicy{spec.OutputTruncate, spec.OutputTail} {
		for _, limit := range []int64{0, 1, 1000, 200_000} {
			c := start(t, limit, policy, nil)
			all := pattern(5 << 20)
			c.write(all[:500])
			c.reach(500)
			r, ended := pipeTo(t, c.Subscribe(0))
			var got []byte
			var group sync.WaitGroup
			group.Go(func() { got, _ = io.ReadAll(r) }) // Compared below.
			c.write(all[500:])
			c.end()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			group.Wait()
			want := all
			if limit < 500 { // What came before the subscription and was not kept.
				want = append(model(all[:500], limit, policy), all[500:]...)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s, limit %d: got %d bytes, or wrong ones", policy, limit, len(got))
			}
			checkKept(t, c, int64(len(all)), model(all, limit, policy))
		}
	}
}

// TestPipeToMakesRoomForOthers: one who comes while bytes are moved gets all that
// comes after, and so does the first.
func TestPipeToMakesRoomForOthers(t *testing.T) {
	leakCheck(t)
	c := start(t, 10, spec.OutputTruncate, nil)
	all := pattern(4 << 20)
	c.write(all[:1000])
	c.reach(1000)
	r, ended := pipeTo(t, c.Subscribe(1000))
	c.moving()
	second := c.Subscribe(1000)
	var first, other []byte
	var group sync.WaitGroup
	group.Go(func() { first, _ = io.ReadAll(r) }) // Compared below.
	group.Go(func() {
		defer second.Close()
		other = collect(t, second, 1000)
	})
	c.write(all[1000:])
	c.end()
	group.Wait()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(first, all[1000:]) || !bytes.Equal(other, all[1000:]) {
		t.Errorf("got %d and %d bytes, or wrong ones", len(first), len(other))
	}
}

// TestPipeToHoldsThePayload: nothing is read from a payload whose reader does not
// read, beyond what the two pipes hold, and the end is not held up.
func TestPipeToHoldsThePayload(t *testing.T) {
	leakCheck(t)
	c := start(t, 10, spec.OutputTruncate, nil)
	all := pattern(3 << 20)
	c.write(all[:1000])
	c.reach(1000)
	r, ended := pipeTo(t, c.Subscribe(1000))
	c.moving()
	written := make(chan int)
	go func() {
		n, _ := c.w.Write(all[1000:]) // EPIPE when the stream is finished.
		written <- n
	}()
	for held := int64(-1); held != c.Counts().BytesTotal; {
		held = c.Counts().BytesTotal
		for range 1000 {
			syscall.Getpid() // until it stands still
		}
	}
	c.Finish()
	n := <-written
	if n == len(all)-1000 {
		t.Error("everything went into a pipe that nobody reads")
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if total := c.Counts().BytesTotal; int64(len(got)) != total-1000 || !bytes.Equal(got, all[1000:total]) {
		t.Errorf("got %d bytes of %d, or wrong ones", len(got), total-1000)
	}
}

// TestPipeToWithoutReader: the stream goes on without one that left.
func TestPipeToWithoutReader(t *testing.T) {
	leakCheck(t)
	c := start(t, 10, spec.OutputTruncate, nil)
	all := pattern(1 << 20)
	c.write(all[:1000])
	c.reach(1000)
	r, ended := pipeTo(t, c.Subscribe(1000))
	c.moving()
	r.Close() // Nothing was read.
	c.write(all[1000:])
	if err := <-ended; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("PipeTo returned %v", err)
	}
	c.end()
	checkKept(t, c, int64(len(all)), all[:10])
}

// TestSignalsAreNoBytes: a signal to the thread that looks at a pipe, as Go's scheduler sends
// them, is nothing that came.
func TestSignalsAreNoBytes(t *testing.T) {
	r, w, err := Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(r)
	defer syscall.Close(w)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := os.Getpid(), unix.Gettid()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(pid, tid, unix.SIGURG) // the thread is locked and lives
			}
		}
	}()
	for range 100_000 {
		if readable(r) {
			t.Error("an empty pipe can be read")
			break
		}
	}
	close(stop)
	<-stopped
}

// TestDrainSeesSilenceBesideMover: a subscription that moves bytes does not make
// a silent survivor look like one that writes.
func TestDrainSeesSilenceBesideMover(t *testing.T) {
	leakCheck(t)
	c := start(t, 0, spec.OutputTruncate, nil)
	c.write([]byte("x"))
	c.reach(1)
	r, ended := pipeTo(t, c.Subscribe(1))
	c.moving()
	if c.Drain(DefaultQuiet, 1<<40) {
		t.Error("a stream whose writer lives was over")
	}
	c.Finish()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(r); len(got) > 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
