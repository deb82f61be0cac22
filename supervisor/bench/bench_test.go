package bench

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

// taking is a way whose executions take what f says.
func taking(name string, f func(n int) (time.Duration, error)) *Way {
	return &Way{Name: name, Open: func(context.Context) (*Client, error) {
		n := 0
		return &Client{Close: func() error { return nil }, Once: func(context.Context) (time.Duration, error) {
			n++
			return f(n)
		}}, nil
	}}
}

func TestLatencies(t *testing.T) {
	bare := taking("bare", func(n int) (time.Duration, error) { return time.Duration(n-WarmUp) * time.Millisecond, nil })
	double := taking("double", func(n int) (time.Duration, error) { return time.Duration(n-WarmUp) * 2 * time.Millisecond, nil })
	broken := taking("broken", func(int) (time.Duration, error) { return 0, errors.New("no such thing") })
	got, err := Latencies(t.Context(), []*Way{bare, double, broken, {Name: "gone", Absent: "not installed"}}, 101)
	if err != nil {
		t.Fatal(err)
	}
	b, d := got[0], got[1]
	if b.Count != 101 || b.Min != time.Millisecond || b.P50 != 51*time.Millisecond || b.P90 != 91*time.Millisecond || b.P99 != 100*time.Millisecond || b.Ratio != 1 {
		t.Errorf("bare: %+v", b)
	}
	if d.Ratio != 2 || d.RatioP99 < 3.9 || d.RatioP99 > 4 {
		t.Errorf("double: %v, %v", d.Ratio, d.RatioP99)
	}
	if got[2].Absent != "no such thing" || got[3].Absent != "not installed" || got[3].Count != 0 {
		t.Errorf("absent: %+v", got[2:])
	}
}

func TestAFailureInTheMeasurementEndsIt(t *testing.T) {
	late := taking("late", func(n int) (time.Duration, error) {
		if n > WarmUp+1 {
			return 0, errors.New("out of luck")
		}
		return time.Millisecond, nil
	})
	if _, err := Latencies(t.Context(), []*Way{late}, 5); err == nil {
		t.Error("no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Latencies(ctx, []*Way{taking("any", func(int) (time.Duration, error) { return 1, nil })}, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestThroughputs: every client runs its own executions, and the time on the
// processor is counted.
func TestThroughputs(t *testing.T) {
	burn := taking("burn", func(int) (time.Duration, error) {
		start := time.Now()
		for time.Since(start) < time.Millisecond {
		}
		return time.Since(start), nil
	})
	got, err := Throughputs(t.Context(), []*Way{burn}, []int{1, 4}, 150*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{1, 4} {
		r := got[0].Rates[i]
		if r.Clients != n || r.PerSecond <= 0 || r.CPU <= 0 || r.P50 < time.Millisecond || r.P99 < r.P50 {
			t.Errorf("%d clients: %+v", n, r)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, x := range []struct {
		argv  []string
		check func([]byte) error
		ok    bool
	}{
		{[]string{"/bin/sh", "-c", "exit 0"}, nil, true},
		{[]string{"/bin/sh", "-c", "echo wrong; exit 3"}, nil, false},
		{[]string{"/bin/sh", "-c", "echo said"}, func(b []byte) error {
			if string(b) != "said" {
				return errors.New("it printed " + string(b))
			}
			return nil
		}, true},
		{[]string{"/nonexistent/program"}, nil, false},
	} {
		c, err := Command{Argv: x.argv, Check: x.check}.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Twice: what was said before is gone.
		for range 2 {
			if took, err := c.Once(t.Context()); (err == nil) != x.ok || x.ok && took <= 0 {
				t.Errorf("%v: %v, %v", x.argv, took, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSpentOfADaemon(t *testing.T) {
	// This process stands for a daemon: its time is counted twice then.
	one, err := Spent(0)
	if err != nil {
		t.Fatal(err)
	}
	both, err := Spent(os.Getpid())
	if err != nil || both < one {
		t.Errorf("%v after %v, %v", both, one, err)
	}
	if _, err := Spent(1 << 30); err == nil {
		t.Error("no error for a process that is not there")
	}
}

func TestMedian(t *testing.T) {
	samples := []int{9, 1, 5}
	if m := Median(samples); m != 5 || !slices.Equal(samples, []int{9, 1, 5}) {
		t.Errorf("%d, %v", m, samples)
	}
}
