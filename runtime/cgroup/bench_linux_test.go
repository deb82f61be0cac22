package cgroup

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// BenchmarkLife measures the life of a group step by step; the times of one
// cold process are some tens of microseconds above them.
func BenchmarkLife(b *testing.B) {
	limits := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(256 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(100))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024))},
	}
	h, err := Detect()
	if err != nil || len(h.Missing()) > 0 {
		b.Skip("this host has not all controllers")
	}
	round := 0
	times := map[string][]time.Duration{}
	step := func(name string, do func() error) {
		begin := time.Now()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		times[name] = append(times[name], time.Since(begin))
	}
	for b.Loop() {
		round++
		var g *Group
		step("detect", func() error { _, err := Detect(); return err })
		step("create", func() (err error) {
			g, err = h.Create(testPrefix()+"bench-"+strconv.Itoa(round), limits, nil)
			return err
		})
		step("stats", func() error { _, err := g.Stats(); return err })
		step("sample", func() error { g.Sample(); return nil })
		step("pressure", func() error { _, err := g.Pressure(); return err })
		step("remove", func() error { return g.Remove(context.Background()) })
	}
	for name, list := range times {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds()), name+"-p50-us")
	}
}
