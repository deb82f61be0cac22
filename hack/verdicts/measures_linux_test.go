package verdicts

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// measured runs a payload that prints what it used by its own account.
func measured(t *testing.T, n int, resources object, args ...string) (*spec.Response, float64) {
	t.Helper()
	self := "/proc/self/exe"
	r := run(t, newID(0xe0000+n), object{"command": payload(args...), "timeout_ms": ms(time.Minute), "resources": resources,
		"isolation": object{"bind_mounts": []object{{"source": resolved(t, self), "destination": "/payload"}}}})
	if r.Status != spec.StatusSuccess || *r.ExitCode != 0 {
		t.Fatalf("%s", r.Encode(true))
	}
	own, err := strconv.ParseFloat(strings.TrimSpace(*r.Stdout), 64)
	if err != nil {
		t.Fatal(err)
	}
	return r, own
}

// TestMemoryIsMeasured compares the peak with the anonymous memory that the
// payload itself reads of the kernel.
func TestMemoryIsMeasured(t *testing.T) {
	if !enforced(t, 1)[spec.LimitMemory] {
		return // the table holds that such a host refuses the limit
	}
	for n, mib := range []int{8, 64, 150} {
		r, own := measured(t, n, object{"memory_bytes": 256 << 20}, "alloc", strconv.Itoa(mib))
		if r.Metrics.MaxMemoryBytes == nil {
			t.Fatalf("not measured: %s", r.Encode(true))
		}
		if have := float64(*r.Metrics.MaxMemoryBytes); own < float64(mib<<20) || math.Abs(have-own) > max(0.05*own, 2<<20) {
			t.Errorf("%d MiB: measured %.0f, by its own account %.0f", mib, have, own)
		}
	}
}

// TestCPUTimeIsMeasured compares with the payload's getrusage.
func TestCPUTimeIsMeasured(t *testing.T) {
	if !enforced(t, 2)[spec.LimitCPUTime] {
		return // the table holds that such a host refuses the limit
	}
	// Process 1 and the set-up are not the payload's own, and dear in a machine.
	r, own := measured(t, 24, object{}, "spin", "1")
	if r.Metrics.CPUTimeMS == nil {
		t.Fatalf("not measured: %s", r.Encode(true))
	}
	start := *r.Metrics.CPUTimeMS*1000 - own
	if slow() == 1 && start > 200_000 {
		t.Errorf("the start took %.0f us of CPU time", start)
	}
	for n, threads := range []string{"1", "2"} {
		r, own := measured(t, 16+n, object{}, "spin", strconv.FormatInt(ms(600*time.Millisecond), 10), threads)
		if r.Metrics.CPUTimeMS == nil {
			t.Fatalf("not measured: %s", r.Encode(true))
		}
		if have := *r.Metrics.CPUTimeMS*1000 - start; math.Abs(have-own) > 0.05*own {
			t.Errorf("%s threads: measured %.0f us, by its own account %.0f", threads, have, own)
		}
	}
}

// TestQuotaHolds wants half a core to be half a core. A loaded machine gives
// less, never more; that the quota and nothing else gave less is told by the time
// of which the kernel says that it held the payload back.
func TestQuotaHolds(t *testing.T) {
	if !enforced(t, 3)[spec.LimitCPUQuota] {
		return // the table holds that such a host refuses the limit
	}
	// A single thread: the kernel adds up what each core was held back for, also
	// for the moments in which a runtime's other threads wake up.
	r := run(t, newID(0xe0020), object{"command": sh("while :; do :; done"), "timeout_ms": ms(time.Minute),
		"resources": object{"cpu_quota": 0.5, "cpu_time_ms": ms(800 * time.Millisecond)}})
	if r.Termination.Reason != spec.ReasonTimeoutCPU {
		t.Fatalf("%s", r.Encode(true))
	}
	m := r.Metrics
	if m.CPUTimeMS == nil || m.ThrottledMS == nil || m.WallTimeMS == nil {
		t.Fatalf("not measured: %s", r.Encode(true))
	}
	if share := *m.CPUTimeMS / *m.WallTimeMS; share > 0.55 {
		t.Errorf("used %.2f cores, the quota is 0.5", share)
	}
	if share := *m.CPUTimeMS / (*m.CPUTimeMS + *m.ThrottledMS); share < 0.45 {
		t.Errorf("was held back to %.2f cores, the quota is 0.5", share)
	}
	if p := m.Pressure; p != nil && (p.CPUSomeMS == nil || *p.CPUSomeMS <= 0) {
		t.Errorf("was held back and waited for no processor: %s", r.Encode(true))
	}
}

// TestTimeline holds the points to what the kernel counted in the end, and has
// none for an execution that is too short for one.
func TestTimeline(t *testing.T) {
	if !enforced(t, 5)[spec.LimitMemory] {
		return // there is no control group to sample
	}
	r := run(t, newID(0xe0030), object{"command": sh("head -c 8388608 /dev/zero >/tmp/x; while :; do :; done"), "timeout_ms": ms(time.Second), "grace_ms": 60000})
	if r.Termination.Reason != spec.ReasonTimeoutWall || r.Timeline == nil {
		t.Fatalf("%s", r.Encode(true))
	}
	points := r.Timeline.Points
	if n := len(points); n < 3 || n > spec.TimelineMax || r.Timeline.IntervalMS < 100 {
		t.Errorf("%d points, interval %d ms", n, r.Timeline.IntervalMS)
	}
	last := spec.Point{CPUTimeMS: new(float64)}
	for _, p := range points {
		if p.MemoryBytes == nil || p.CPUTimeMS == nil || p.Pids == nil {
			t.Fatalf("not measured: %+v", p)
		}
		if p.AtMS <= last.AtMS || p.AtMS < 100 || float64(p.AtMS) > *r.Metrics.WallTimeMS+1 || *p.CPUTimeMS < *last.CPUTimeMS ||
			*p.CPUTimeMS > *r.Metrics.CPUTimeMS || *p.MemoryBytes > *r.Metrics.MaxMemoryBytes || *p.Pids > 2 ||
			*p.Pids < 1 && p.AtMS < ms(time.Second) {
			t.Errorf("at %d ms: %d bytes, %.1f ms of CPU, %d processes; before: %d ms, %.1f ms", p.AtMS, *p.MemoryBytes, *p.CPUTimeMS, *p.Pids, last.AtMS, *last.CPUTimeMS)
		}
		last = p
	}
	if *last.MemoryBytes < 8<<20 {
		t.Errorf("the last point has %d bytes in use", *last.MemoryBytes)
	}
	// Well below, because its end may be heard of late.
	if r := run(t, newID(0xe0031), object{"command": []string{"true"}}); r.Metrics.WallTimeMS != nil && *r.Metrics.WallTimeMS < 20 && (r.Timeline != nil || r.Metrics.Pressure != nil) {
		t.Errorf("measured within 20 ms: %s", r.Encode(true))
	}
}
