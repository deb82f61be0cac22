package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// WarmUp is the number of rounds that are run and not counted: page cache,
// compiled filters, first-use directories.
const WarmUp = 5

// Latency is how long one way took.
type Latency struct {
	Name   string `json:"name"`
	Walls  string `json:"walls"`
	Absent string `json:"absent,omitempty"`
	// Samples are sorted.
	Samples []time.Duration `json:"-"`
	Count   int             `json:"samples"`
	Min     time.Duration   `json:"min_ns"`
	P50     time.Duration   `json:"p50_ns"`
	P90     time.Duration   `json:"p90_ns"`
	P99     time.Duration   `json:"p99_ns"`
	// Ratio and RatioP99 are P50 and P99 as multiples of the first way's P50; 0:
	// one of them was not measured.
	Ratio    float64 `json:"p50_ratio"`
	RatioP99 float64 `json:"p99_ratio"`
}

// Latencies runs every way once a round. The first way is what the others are
// compared with. A way that fails while warming up is left out with its reason;
// one that fails later ends the measurement, as its numbers would not be of the
// thing that is compared.
func Latencies(ctx context.Context, ways []*Way, rounds int) (all []Latency, err error) {
	all = make([]Latency, len(ways))
	clients := make([]*Client, len(ways))
	order := make([]int, 0, len(ways))
	for i, w := range ways {
		all[i] = Latency{Name: w.Name, Walls: w.Walls, Absent: w.Absent}
		if w.Absent != "" {
			continue
		}
		if clients[i], err = w.Open(ctx); err != nil {
			all[i].Absent = err.Error()
			continue
		}
		defer func() { err = errors.Join(err, clients[i].Close()) }()
		order = append(order, i)
	}
	defer reap(children())
	for round := -WarmUp; round < rounds; round++ {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			if all[i].Absent != "" {
				continue
			}
			took, err := clients[i].Once(ctx)
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case err != nil && round < 0:
				all[i].Absent = err.Error()
			case err != nil:
				return nil, fmt.Errorf("%s, round %d: %w", ways[i].Name, round, err)
			case round >= 0:
				all[i].Samples = append(all[i].Samples, took)
			}
		}
	}
	for i := range all {
		all[i].sum(all[0].P50)
	}
	return all, nil
}

// sum fills in what follows from the samples. The bare way's own median is its
// reference.
func (l *Latency) sum(bare time.Duration) {
	if l.Count = len(l.Samples); l.Count == 0 {
		return
	}
	slices.Sort(l.Samples)
	l.Min, l.P50, l.P90, l.P99 = l.Samples[0], Quantile(l.Samples, 0.5), Quantile(l.Samples, 0.9), Quantile(l.Samples, 0.99)
	if bare == 0 {
		bare = l.P50
	}
	l.Ratio, l.RatioP99 = float64(l.P50)/float64(bare), float64(l.P99)/float64(bare)
}

// Quantile picks the q-th of the sorted samples, nearest rank.
func Quantile[T any](sorted []T, q float64) T {
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// Median of samples in any order; there must be one.
func Median[T int | int64 | float64 | time.Duration](samples []T) T {
	return Quantile(slices.Sorted(slices.Values(samples)), 0.5)
}
