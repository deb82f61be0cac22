package output

import (
	"bytes"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// TestGigabyteIsCounted passes 1 GiB through every way to treat it.
func TestGigabyteIsCounted(t *testing.T) {
	leakCheck(t)
	block := pattern(256 << 10)
	for _, policy := range []spec.OutputPolicy{spec.OutputTruncate, spec.OutputTail, spec.OutputKill} {
		var told atomic.Int32
		c := start(t, 1<<20, policy, func() { told.Add(1) })
		for range (1 << 30) / len(block) {
			c.write(block)
		}
		c.end()
		want := bytes.Repeat(block, 4)
		checkKept(t, c, 1<<30, want)
		if told.Load() > 1 || (told.Load() == 1) != (policy == spec.OutputKill) {
			t.Errorf("%s: told %d times", policy, told.Load())
		}
	}
}

// TestGrandchildHoldsThePipe: a silent survivor costs quiet, a noisy one max.
// Whether real bytes keep quiet away depends on the scheduler, which may hold
// the writer back for longer; TestSilence shows it without one.
func TestGrandchildHoldsThePipe(t *testing.T) {
	leakCheck(t)
	const quiet, limit = 10 * time.Millisecond, 60 * time.Millisecond
	for _, c := range []struct {
		name, script string
		quiet, least time.Duration
	}{
		{"silent", "sleep 1000 & echo $!", quiet, quiet},
		{"noisy", "yes & echo $!", time.Hour, limit},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, 100, spec.OutputTruncate, nil)
			payload := exec.Command("sh", "-c", "("+c.script+" >&2)")
			payload.Stdout = s.w
			var pid bytes.Buffer
			r, err := payload.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := payload.Start(); err != nil {
				t.Fatal(err)
			}
			s.w.Close() // A pipe.
			line := make([]byte, 32)
			n, err := r.Read(line)
			if err != nil {
				t.Fatal(err)
			}
			pid.Write(bytes.TrimSpace(line[:n]))
			defer exec.Command("kill", "-9", pid.String()).Run() // The noisy one may be gone by SIGPIPE.
			if err := payload.Wait(); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if s.Drain(c.quiet, limit) {
				t.Error("Drain saw an end")
			}
			if took := time.Since(begin); took < c.least {
				t.Errorf("Drain gave up after %v, before %v", took, c.least)
			}
			s.Finish()
			total := s.Counts()
			if again := s.Counts(); again != total {
				t.Error("the counts are not frozen")
			}
		})
	}
}

// TestDrainWaitsForTheLastWriter: the survivor writes, then closes.
func TestDrainWaitsForTheLastWriter(t *testing.T) {
	leakCheck(t)
	c := start(t, 100, spec.OutputTruncate, nil)
	drained := make(chan bool)
	go func() { drained <- c.Drain(time.Hour, time.Hour) }()
	c.write([]byte("late"))
	c.reach(4)
	c.w.Close() // A pipe.
	if !<-drained {
		t.Error("Drain did not see the end")
	}
	c.Finish()
	checkKept(t, c, 4, []byte("late"))
}

// TestSilence: a byte that was read and a byte that the reader has not come to
// both put the end of the silence off.
func TestSilence(t *testing.T) {
	leakCheck(t)
	const quiet = 20 * time.Millisecond
	c := start(t, 100, spec.OutputTruncate, nil)
	c.mu.Lock() // The reader stays where it is.
	begin := time.Now()
	c.lastByte = begin
	for _, step := range []struct {
		after, want time.Duration
	}{{0, quiet}, {5 * time.Millisecond, 15 * time.Millisecond}, {quiet, 0}, {2 * quiet, -quiet}} {
		if got := c.silence(begin.Add(step.after), quiet); got != step.want {
			t.Errorf("after %v: %v left, want %v", step.after, got, step.want)
		}
	}
	c.write([]byte("unread"))
	if got := c.silence(begin.Add(3*quiet), quiet); got != quiet {
		t.Errorf("bytes in the pipe count as silence: %v left", got)
	}
	c.drained = make(chan struct{})
	c.lastByte = begin
	c.mu.Unlock()
	c.reach(6)
	c.mu.Lock()
	if !c.lastByte.After(begin) {
		t.Error("a byte that was read did not end the silence")
	}
	c.mu.Unlock()
	c.end()
}

// TestDrainStalled: silence cannot be told while a subscriber holds the
// stream up, so only max ends the wait.
func TestDrainStalled(t *testing.T) {
	leakCheck(t)
	c := start(t, 100, spec.OutputTruncate, nil)
	b := c.Subscribe(0)
	defer b.Close()
	c.write([]byte("held"))
	if _, err := b.Next(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if c.Drain(time.Millisecond, 50*time.Millisecond) {
		t.Error("Drain saw an end")
	}
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("gave up after %v", took)
	}
	c.Finish()
}

// TestFinishWithoutDrain takes what stands in the pipe, with a writer alive.
func TestFinishWithoutDrain(t *testing.T) {
	leakCheck(t)
	for _, n := range []int{0, 1, 5000, 65536} {
		c := start(t, 1<<20, spec.OutputTruncate, nil)
		all := pattern(n)
		if n > 0 {
			c.write(all)
		}
		c.Finish()
		c.Finish()
		checkKept(t, c, int64(n), all)
		// The reader's goroutine closes the pipe on its way out.
		for err := error(nil); err == nil; {
			_, err = c.w.Write([]byte("x"))
		}
		if got := c.Counts().BytesTotal; got != int64(n) {
			t.Error("counted after Finish:", got)
		}
	}
}
