package process

import (
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func request(change func(*spec.Request)) *spec.Request {
	r := spec.Default()
	r.Isolation.Backend, r.Command = spec.BackendProcess, []string{"true"}
	change(r)
	r.Complete()
	return r
}

// TestCheck wants each demand for a wall or a limit refused by field, and defaults let through.
func TestCheck(t *testing.T) {
	if err := Check(request(func(*spec.Request) {})); err != nil {
		t.Errorf("defaults: %v", err)
	}
	quota, millis, root := 0.5, int64(5), "/usr"
	for field, c := range map[string]struct {
		code   fault.Code
		change func(*spec.Request)
	}{
		"/isolation/readonly_paths": {fault.Unsupported, func(r *spec.Request) { r.Isolation.ReadonlyPaths = []string{"/usr"} }},
		"/isolation/writable_paths": {fault.Unsupported, func(r *spec.Request) { r.Isolation.WritablePaths = []string{"/usr"} }},
		"/isolation/bind_mounts":    {fault.Unsupported, func(r *spec.Request) { r.Isolation.BindMounts = []spec.BindMount{{Source: "/a", Destination: "/b"}} }},
		"/isolation/rootfs":         {fault.Unsupported, func(r *spec.Request) { r.Isolation.Rootfs = &root }},
		"/isolation/user":           {fault.Unsupported, func(r *spec.Request) { r.Isolation.User = "0:0" }},
		"/isolation/hostname":       {fault.Unsupported, func(r *spec.Request) { r.Isolation.Hostname = "h" }},
		"/isolation/require":        {fault.Unsupported, func(r *spec.Request) { r.Isolation.Require = []string{spec.WallSeccomp} }},
		"/isolation/seccomp":        {fault.Unsupported, func(r *spec.Request) { r.Isolation.Seccomp = spec.Seccomp{Custom: []byte("{}")} }},
		"/resources/memory_bytes":   {fault.LimitUnavailable, func(r *spec.Request) { r.Resources.MemoryBytes++ }},
		"/resources/max_pids":       {fault.LimitUnavailable, func(r *spec.Request) { r.Isolation.Require = []string{spec.LimitPids} }},
		"/resources/cpu_shares":     {fault.LimitUnavailable, func(r *spec.Request) { r.Resources.CPUShares++ }},
		"/resources/cpu_quota":      {fault.LimitUnavailable, func(r *spec.Request) { r.Resources.CPUQuota = &quota }},
		"/resources/cpu_time_ms":    {fault.LimitUnavailable, func(r *spec.Request) { r.Resources.CPUTimeMS = &millis }},
		"/resources/disk_bytes":     {fault.LimitUnavailable, func(r *spec.Request) { r.Resources.DiskBytes++ }},
		"/resources/io":             {fault.LimitUnavailable, func(r *spec.Request) { r.Resources.IO = &spec.IOLimits{ReadBytesPerSecond: &millis} }},
	} {
		err := Check(request(c.change))
		if f := fault.From(err, ""); err == nil || f.Field != field || f.Code != c.code {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := Check(request(func(r *spec.Request) {
		r.Resources.MemoryBytes++
		r.Isolation.AllowDegraded = []string{spec.LimitMemory}
	})); err != nil {
		t.Errorf("allowed to be missing: %v", err)
	}
}

func TestConfig(t *testing.T) {
	c := Config(request(func(r *spec.Request) { r.Environment = map[string]string{"B": "2", "HOME": "/mine"} }), "/h")
	if got := strings.Join(c.Process.Env, " "); !strings.HasPrefix(got, "B=2 HOME=/mine LANG=C.UTF-8 PATH=/") || c.Process.Cwd != "/h" {
		t.Errorf("%s in %s", got, c.Process.Cwd)
	}
	types := func(r *spec.Request) (all []string) {
		for _, l := range Config(r, "/h").Process.Rlimits {
			all = append(all, l.Type)
		}
		return all
	}
	if got := types(request(func(*spec.Request) {})); slices.Contains(got, "RLIMIT_NPROC") || !slices.Contains(got, "RLIMIT_NOFILE") {
		t.Errorf("defaults: %v", got)
	}
	if got := types(request(func(r *spec.Request) { r.Resources.Rlimits = map[string]spec.Rlimit{"nproc": {Soft: 7, Hard: 7}} })); !slices.Contains(got, "RLIMIT_NPROC") {
		t.Errorf("asked for: %v", got)
	}
}
