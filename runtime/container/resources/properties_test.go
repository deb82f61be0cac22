package resources

import (
	"math"
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestProperties: what systemd is told is what the files are given.
func TestProperties(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	unsigned := func(n uint64) *uint64 { return &n }
	r := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: number(64 << 20), Swap: number(96 << 20), Reservation: number(32 << 20)},
		CPU:     &specs.LinuxCPU{Shares: unsigned(1024), Quota: number(33333), Period: unsigned(50000), Cpus: "0-1,9", Mems: "0"},
		Pids:    &specs.LinuxPids{Limit: number(-1)},
		Unified: map[string]string{"memory.high": "1000"},
	}
	named := func(v2 bool) map[string]any {
		all := map[string]any{}
		for _, p := range properties(settings(r, v2), v2) {
			all[p.Name] = p.Value
		}
		return all
	}
	if got, want := named(true), (map[string]any{"MemoryMax": uint64(64 << 20), "MemorySwapMax": uint64(32 << 20), "MemoryLow": uint64(32 << 20), "MemoryHigh": uint64(1000),
		"CPUWeight": weight(1024), "CPUQuotaPerSecUSec": uint64(670000), "CPUQuotaPeriodUSec": uint64(50000), "AllowedCPUs": []byte{3, 2}, "AllowedMemoryNodes": []byte{1},
		"TasksMax": uint64(math.MaxUint64)}); !reflect.DeepEqual(got, want) {
		t.Errorf("v2: %v, want %v", got, want)
	}
	r.Unified, r.CPU.Quota = nil, number(-1)
	if got, want := named(false), (map[string]any{"MemoryLimit": uint64(64 << 20), "CPUShares": uint64(1024), "CPUQuotaPerSecUSec": uint64(math.MaxUint64),
		"CPUQuotaPeriodUSec": uint64(50000), "TasksMax": uint64(math.MaxUint64)}); !reflect.DeepEqual(got, want) {
		t.Errorf("v1: %v, want %v", got, want)
	}
}
