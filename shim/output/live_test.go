package output

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// collect takes everything from a subscription and checks the offsets.
func collect(t *testing.T, b *Subscription, from int64) []byte {
	t.Helper()
	var all []byte
	for {
		c, err := b.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Error(err)
			return all
		}
		if c.Offset != from+int64(len(all)) || len(c.Data) == 0 {
			t.Errorf("chunk of %d at %d, want %d", len(c.Data), c.Offset, from+int64(len(all)))
		}
		all = append(all, c.Data...)
	}
}

// take takes n bytes from a subscription.
func take(t *testing.T, b *Subscription, n int) []byte {
	t.Helper()
	var all []byte
	for len(all) < n {
		c, err := b.Next()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c.Data...)
	}
	return all
}

// TestSubscribersLoseNothing: far more than the limit reaches every one of several readers.
func TestSubscribersLoseNothing(t *testing.T) {
	leakCheck(t)
	for _, policy := range []spec.OutputPolicy{spec.OutputTruncate, spec.OutputTail} {
		c := start(t, 1000, policy, nil)
		all := pattern(3 << 20)
		var group sync.WaitGroup
		for range 3 {
			b := c.Subscribe(0)
			group.Go(func() {
				defer b.Close()
				if got := collect(t, b, 0); !bytes.Equal(got, all) {
					t.Errorf("got %d bytes, or wrong ones", len(got))
				}
			})
		}
		c.write(all)
		c.end()
		checkKept(t, c, int64(len(all)), model(all, 1000, policy))
		group.Wait()
	}
}

// TestSlowSubscriberHoldsTheStream: the reader does not read on, Finish does
// not wait, and what was in the pipe still arrives.
func TestSlowSubscriberHoldsTheStream(t *testing.T) {
	leakCheck(t)
	c := start(t, 10, spec.OutputTruncate, nil)
	b := c.Subscribe(0)
	defer b.Close()
	all := pattern(50_000)
	c.write(all[:100])
	first, err := b.Next()
	if err != nil || !bytes.Equal(first.Data, all[:100]) {
		t.Fatal(err, len(first.Data))
	}
	c.write(all[100:])
	c.w.Close() // A pipe.
	if !c.Drain(DefaultQuiet, DefaultMax) {
		t.Error("Drain waits although no writer is left")
	}
	if got := c.Counts().BytesTotal; got != 100 {
		t.Errorf("read on to %d while a subscriber held the chunk", got)
	}
	c.Finish()
	if got := c.Counts(); got != (spec.StreamCount{BytesTotal: 50_000, BytesKept: 10, Truncated: true}) {
		t.Errorf("%+v", got)
	}
	if !bytes.Equal(first.Data, all[:100]) {
		t.Error("the lent chunk changed")
	}
	if got := collect(t, b, 100); !bytes.Equal(got, all[100:]) {
		t.Errorf("the rest has %d bytes", len(got))
	}
}

func TestClosingSubscriberFreesTheStream(t *testing.T) {
	leakCheck(t)
	c := start(t, 10, spec.OutputTruncate, nil)
	stuck, waiting := c.Subscribe(0), c.Subscribe(0)
	ended := make(chan error)
	go func() {
		for {
			if _, err := waiting.Next(); err != nil {
				ended <- err
				return
			}
		}
	}()
	written := make(chan bool)
	all := pattern(2 << 20)
	go func() { c.w.Write(all); close(written) }() // Counted below.
	c.reach(1)
	waiting.Close()
	if err := <-ended; err != os.ErrClosed {
		t.Error(err)
	}
	stuck.Close()
	stuck.Close()
	<-written
	c.end()
	if got := c.Counts().BytesTotal; got != 2<<20 {
		t.Error(got)
	}
	if _, err := stuck.Next(); err != os.ErrClosed {
		t.Error(err)
	}
}

// TestLateSubscriber joins after a gap of bytes that were only counted.
func TestLateSubscriber(t *testing.T) {
	leakCheck(t)
	all := pattern(300_000)
	for _, c := range []struct {
		policy         spec.OutputPolicy
		limit, from    int64
		keptLo, keptHi int64 // replayed
	}{
		{spec.OutputTruncate, 1000, 0, 0, 1000},
		{spec.OutputTruncate, 1000, 400, 400, 1000},
		{spec.OutputTruncate, 1000, 5000, 1000, 1000},
		{spec.OutputTruncate, 0, 0, 0, 0},
		{spec.OutputTruncate, 1 << 20, -5, 0, 200_000},
		{spec.OutputTail, 1000, 0, 199_000, 200_000},
		{spec.OutputTail, 100_000, 0, 100_000, 200_000},
		{spec.OutputTail, 100_000, 150_000, 150_000, 200_000},
		{spec.OutputTail, 100_000, math.MaxInt64, 200_000, 200_000},
	} {
		s := start(t, c.limit, c.policy, nil)
		s.write(all[:200_000])
		s.reach(200_000)
		b := s.Subscribe(c.from)
		// The replay is taken first: a tail that Finish overtakes has less to replay.
		replayed := take(t, b, int(c.keptHi-c.keptLo))
		if !bytes.Equal(replayed, all[c.keptLo:c.keptHi]) {
			t.Errorf("%+v: wrong replay", c)
		}
		got := make(chan []byte)
		go func() { defer b.Close(); got <- collect(t, b, 200_000) }()
		s.write(all[200_000:])
		s.end()
		if b := <-got; !bytes.Equal(b, all[200_000:]) {
			t.Errorf("%+v: %d live bytes", c, len(b))
		}
		after := s.Subscribe(0)
		var first int64
		if c.policy == spec.OutputTail {
			first = s.Counts().BytesTotal - s.Counts().BytesKept
		}
		if b := collect(t, after, first); !bytes.Equal(b, s.bytes()) {
			t.Errorf("%+v: %d bytes after the end", c, len(b))
		}
		after.Close()
	}
}

func TestCloseEndsSubscribers(t *testing.T) {
	leakCheck(t)
	c := start(t, 10, spec.OutputTruncate, nil)
	c.write([]byte("never taken"))
	b := c.Subscribe(0)
	defer b.Close()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Next(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if _, err := c.Bytes(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if c.Save() == nil {
		t.Error("saved after Close")
	}
	late := c.Subscribe(0)
	defer late.Close()
	if _, err := late.Next(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

// TestKeptSubscriberHoldsNothing: one that takes what is kept never slows the
// stream, gets every kept byte, and sees by the offsets what a tail has left.
func TestKeptSubscriberHoldsNothing(t *testing.T) {
	leakCheck(t)
	for _, policy := range []spec.OutputPolicy{spec.OutputTruncate, spec.OutputTail} {
		c := start(t, 1000, policy, nil)
		all := pattern(3 << 20)
		early := c.SubscribeKept(0)
		c.write(all[:10])
		if got := take(t, early, 10); !bytes.Equal(got, all[:10]) {
			t.Fatalf("got %q", got)
		}
		c.write(all[10:]) // returns only if nobody holds the stream
		c.end()
		checkKept(t, c, int64(len(all)), model(all, 1000, policy))
		end := int64(10)
		for {
			chunk, err := early.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if chunk.Offset < end || !bytes.Equal(chunk.Data, all[chunk.Offset:chunk.Offset+int64(len(chunk.Data))]) {
				t.Fatalf("%v: wrong bytes at %d after %d", policy, chunk.Offset, end)
			}
			end = chunk.Offset + int64(len(chunk.Data))
		}
		if want := int64(1000); policy == spec.OutputTruncate && end != want {
			t.Errorf("ended at %d, want %d", end, want)
		}
		if policy == spec.OutputTail && end != int64(len(all)) {
			t.Errorf("ended at %d, want %d", end, len(all))
		}
		early.Close()
	}
}
