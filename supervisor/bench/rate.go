package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// pieces is into how many pieces the time of one rate is cut. They alternate with those
// of the other ways, and the median is taken.
const pieces = 3

// Rate is how much one way does with a number of clients.
type Rate struct {
	Clients int `json:"clients"`
	// PerSecond are complete executions.
	PerSecond float64 `json:"per_second"`
	// CPU is the time on a processor of one execution, of all processes: client,
	// daemon, shim, sandbox, command.
	CPU time.Duration `json:"cpu_ns"`
	// P50 and P99 are how long an execution took from its caller's view.
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
}

// Throughput is the rates of one way.
type Throughput struct {
	Name   string `json:"name"`
	Absent string `json:"absent,omitempty"`
	Rates  []Rate `json:"rates"`
}

// Throughputs measures every way with each number of clients, for so long each.
func Throughputs(ctx context.Context, ways []*Way, clients []int, long time.Duration) ([]Throughput, error) {
	all := make([]Throughput, len(ways))
	for i, w := range ways {
		all[i] = Throughput{Name: w.Name, Absent: w.Absent}
	}
	for _, n := range clients {
		measured := make([][]Rate, len(ways))
		for range pieces {
			for _, i := range rand.Perm(len(ways)) {
				if all[i].Absent != "" {
					continue
				}
				r, err := rate(ctx, ways[i], n, long/pieces)
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				if err != nil {
					all[i].Absent = fmt.Sprintf("%d clients: %v", n, err)
					continue
				}
				measured[i] = append(measured[i], r)
			}
		}
		for i := range all {
			if all[i].Absent == "" {
				all[i].Rates = append(all[i].Rates, middle(n, measured[i]))
			}
		}
	}
	return all, nil
}

// middle takes the median of each number.
func middle(clients int, rates []Rate) Rate {
	var perSecond []float64
	var cpu, p50, p99 []time.Duration
	for _, r := range rates {
		perSecond, cpu, p50, p99 = append(perSecond, r.PerSecond), append(cpu, r.CPU), append(p50, r.P50), append(p99, r.P99)
	}
	return Rate{Clients: clients, PerSecond: Median(perSecond), CPU: Median(cpu), P50: Median(p50), P99: Median(p99)}
}

// rate has n clients run executions, one after the other each, for so long.
func rate(ctx context.Context, w *Way, n int, long time.Duration) (r Rate, err error) {
	clients := make([]*Client, n)
	for i := range clients {
		c, err := w.Open(ctx)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		// The first execution of a client is its own warm-up.
		if _, err := c.Once(ctx); err != nil {
			return r, err
		}
		clients[i] = c
	}
	earlier := children()
	before, err := Spent(w.Daemon)
	if err != nil {
		return r, err
	}
	start := time.Now()
	var mu sync.Mutex // guards what follows
	var failed error
	var took []time.Duration
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for !stop.Load() && time.Since(start) < long {
				d, err := c.Once(ctx)
				mu.Lock()
				if err != nil {
					failed = errors.Join(failed, err)
					stop.Store(true)
				}
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if failed != nil {
		return r, failed
	}
	reap(earlier)
	after, err := Spent(w.Daemon)
	if err != nil {
		return r, err
	}
	l := Latency{Samples: took}
	l.sum(0)
	return Rate{Clients: n, PerSecond: float64(len(took)) / elapsed.Seconds(), CPU: (after - before) / time.Duration(len(took)), P50: l.P50, P99: l.P99}, nil
}
