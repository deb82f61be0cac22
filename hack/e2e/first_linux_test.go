package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/spec"
)

// TestFirstExample runs the first example of the README and holds its response
// to what the contract promises of one.
func TestFirstExample(t *testing.T) {
	needPrograms(t, "python3")
	c := begin(t)
	o := c.run(object{"command": python("print(6*7)")})
	o.printed(t, "42\n")
	checkMetrics(t, o)
	checkWalls(t, o)
	checkLimits(t, o)
	if s := o.Timestamps; s.Started == nil || s.Completed == nil || !s.Created.Before(*s.Started) || !s.Started.Before(*s.Completed) ||
		time.Since(s.Created).Abs() > patient(2*time.Minute) {
		t.Errorf("timestamps %+v", s)
	}
	if len(o.Enforcement.PolicyHash) != 64 {
		t.Errorf("policy hash %q", o.Enforcement.PolicyHash)
	}
}

// unmeasured are the metrics of the control group.
var unmeasured = []string{"cpu_time_ms", "io_bytes_read", "io_bytes_written", "kernel_time_ms", "max_memory_bytes", "max_pids", "oom_kills", "throttled_ms", "user_time_ms"}

// checkMetrics wants no metric to be null, but those of a missing control group.
func checkMetrics(t *testing.T, o outcome) {
	t.Helper()
	raw := struct{ Metrics map[string]any }{}
	if err := json.Unmarshal([]byte(o.out), &raw); err != nil {
		t.Fatal(err)
	}
	var null []string
	for _, name := range slices.Sorted(maps.Keys(raw.Metrics)) {
		if raw.Metrics[name] == nil {
			null = append(null, name)
		}
	}
	var may []string
	if o.Enforcement.Limits[spec.LimitMemory] == spec.Absent {
		may = unmeasured
	}
	if !slices.Equal(null, may) {
		t.Errorf("metrics that are null: %q, want %q", null, may)
	}
	if m := o.Metrics; *m.WallTimeMS <= 0 || *m.StartupUS <= 0 || len(m.StartupPhases) == 0 {
		t.Errorf("metrics %s", o.out)
	} else if may == nil && (*m.CPUTimeMS <= 0 || *m.MaxMemoryBytes < 1<<20 || *m.MaxPids != 1 || *m.OOMKills != 0) {
		t.Errorf("metrics %s", o.out)
	}
}

// checkWalls wants every wall, without privileges too.
func checkWalls(t *testing.T, o outcome) {
	t.Helper()
	for _, name := range spec.WallNames() {
		want := spec.Enforced
		switch {
		case name == spec.WallIDMap:
			want = "" // nothing is bound
		case name == spec.WallLandlock:
			want = landlock()
		case name == spec.WallTimeNamespace && !exists("/proc/self/ns/time"):
			want = spec.Absent
		case name == spec.WallCgroupNamespace && !exists("/proc/self/ns/cgroup"):
			want = spec.Absent
		}
		if have := o.Enforcement.Walls[name]; have != want {
			t.Errorf("wall %s is %q, want %q", name, have, want)
		}
	}
}

// checkLimits wants every limit, but those that need a control group where
// there is none.
func checkLimits(t *testing.T, o outcome) {
	t.Helper()
	want := map[string]spec.State{}
	for _, name := range []string{spec.LimitTimeout, spec.LimitOutput, spec.LimitDisk, spec.LimitRlimits} {
		want[name] = spec.Enforced
	}
	controlled := []string{spec.LimitMemory, spec.LimitPids, spec.LimitCPUShares}
	for _, name := range controlled {
		want[name] = spec.Enforced
		if os.Geteuid() != 0 && !delegated() {
			want[name] = spec.Absent
			if !strings.Contains(strings.Join(o.Warnings, "\n"), name) {
				t.Errorf("no warning that %s is absent: %q", name, o.Warnings)
			}
		}
	}
	if want[spec.LimitMemory] == spec.Enforced && landlock() != spec.Absent && len(o.Warnings) > 0 {
		t.Errorf("warnings %q", o.Warnings)
	}
	if !maps.Equal(o.Enforcement.Limits, want) {
		t.Errorf("limits %v, want %v", o.Enforcement.Limits, want)
	}
}

// landlock is what this kernel has of it.
func landlock() spec.State {
	switch version := host.Landlock(); {
	case version < plan.LandlockLeast:
		return spec.Absent
	case version < plan.LandlockWhole:
		return spec.Degraded
	}
	return spec.Enforced
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
