package spec_test

import (
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// TestAsked wants a limit that the caller spells out to be told from a default
// of the same value, also after the request has crossed a process.
func TestAsked(t *testing.T) {
	names := []string{spec.LimitMemory, spec.LimitPids, spec.LimitCPUShares, spec.LimitDisk, spec.LimitCPUQuota,
		spec.LimitCPUTime, spec.LimitIO, "rlimit_nofile", "rlimit_core", "rlimit_stack"}
	for _, v := range []struct {
		name, document, profile string
		want                    []string
	}{
		{"nothing", `{"command":["x"]}`, "", nil},
		{"empty resources", `{"command":["x"],"resources":{}}`, "", nil},
		{"the default, spelled out", `{"command":["x"],"resources":{"memory_bytes":268435456}}`, "", []string{"memory"}},
		{"another value", `{"command":["x"],"resources":{"memory_bytes":268435457}}`, "", []string{"memory"}},
		{"all defaults", `{"command":["x"],"resources":{"cpu_shares":1024,"max_pids":100,"disk_bytes":67108864,"rlimits":{"nofile":1024}}}`, "",
			[]string{"pids", "cpu_shares", "disk", "rlimit_nofile"}},
		{"null", `{"command":["x"],"resources":{"cpu_quota":null,"cpu_time_ms":null,"io":null}}`, "", nil},
		{"not null", `{"command":["x"],"resources":{"cpu_quota":1,"cpu_time_ms":1,"io":{"read_ops_per_second":1}}}`, "", []string{"cpu_quota", "cpu_time", "io"}},
		{"rlimits", `{"command":["x"],"resources":{"rlimits":{"core":1,"stack":4096}}}`, "", []string{"rlimit_core", "rlimit_stack"}},
		{"a profile", `{"command":["x"]}`, "production", []string{"memory", "pids"}},
		{"over a profile", `{"command":["x"],"resources":{"memory_bytes":268435456}}`, "development", []string{"memory", "pids"}},
		{"required", `{"command":["x"],"isolation":{"require":["pids"]}}`, "", []string{"pids"}},
		{"required instead", `{"command":["x"],"isolation":{"require":["pids"]},"resources":{"memory_bytes":268435456}}`, "", []string{"pids"}},
		{"nothing required", `{"command":["x"],"resources":{"memory_bytes":268435456,"max_pids":9},"isolation":{"require":[]}}`, "", []string{"pids"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			base := spec.Default()
			if v.profile != "" {
				if err := base.ApplyProfile(v.profile); err != nil {
					t.Fatal(err)
				}
			}
			r, err := spec.DecodeOver(base, []byte(v.document))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for _, name := range names {
					if have, want := r.Asked(name), contains(v.want, name); have != want {
						t.Errorf("asked for %s: %t, want %t", name, have, want)
					}
				}
				if r, err = spec.DecodeRequest(r.Encode()); err != nil {
					t.Fatal(err)
				}
			}
			if len(spec.Default().Isolation.Require) > 0 {
				t.Error("a default is required")
			}
		})
	}
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}
