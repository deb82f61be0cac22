package output

import (
	"os/exec"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

func TestDiag(t *testing.T) {
	early := 0
	for i := range 300 {
		s := start(t, 100, spec.OutputTruncate, nil)
		c := exec.Command("yes")
		c.Stdout = s.w
		if err := c.Start(); err != nil { t.Fatal(err) }
		s.w.Close()
		s.reach(1)
		begin := time.Now()
		s.Drain(10*time.Millisecond, 60*time.Millisecond)
		took := time.Since(begin)
		if took < 60*time.Millisecond {
			early++
			q := -1
			s.raw.Control(func(fd uintptr) { q, _ = queued(int(fd)) })
			t0 := s.Counts().BytesTotal
			b2 := time.Now()
			for s.Counts().BytesTotal == t0 && time.Since(b2) < 3*time.Second { time.Sleep(100*time.Microsecond) }
			t.Logf("run %d: gave up %v, queued %d, total %d, progress after %v: %d", i, took, q, t0, time.Since(b2), s.Counts().BytesTotal-t0)
		}
		s.Finish()
		c.Process.Kill(); c.Wait()
	}
	t.Logf("early %d of 300", early)
}
