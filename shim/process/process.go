// Package process decides what the process backend takes: a request that runs
// as an ordinary process of its caller, with limits but without walls. It is pure
// and the same on every system.
package process

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// Check refuses what a process without walls cannot be given, all of it at once:
// E2008 for walls and what only a sandbox has, E4001 for limits that were asked for
// and may not be missing. A default that has no meaning here is not refused: the
// response says that it is absent.
func Check(r *spec.Request) error {
	var all fault.List
	i, d := &r.Isolation, &spec.Default().Isolation
	wall := func(asked bool, field, name string) {
		if asked {
			all = append(all, fault.New(fault.Unsupported, "choose backend", "the process backend has no "+name).WithField(field).
				WithHint("Leave it out, or use the namespace backend."))
		}
	}
	wall(len(i.ReadonlyPaths) > 0, "/isolation/readonly_paths", "file tree of its own")
	wall(len(i.WritablePaths) > 0, "/isolation/writable_paths", "file tree of its own")
	wall(len(i.BindMounts) > 0, "/isolation/bind_mounts", "file tree of its own")
	wall(i.Rootfs != nil, "/isolation/rootfs", "root of its own")
	wall(i.User != d.User, "/isolation/user", "user of its own")
	wall(i.Hostname != d.Hostname, "/isolation/hostname", "host name of its own")
	wall(i.Seccomp.Custom != nil || i.Seccomp.Name != spec.SeccompDefault && i.Seccomp.Name != spec.SeccompUnconfined, "/isolation/seccomp", "system call filter")
	for _, name := range []string{spec.WallLandlock, spec.WallSeccomp} {
		wall(slices.Contains(i.Require, name) && !slices.Contains(i.AllowDegraded, name), "/isolation/require", name)
	}
	for _, limit := range []struct{ name, field string }{
		{spec.LimitMemory, "/resources/memory_bytes"}, {spec.LimitPids, "/resources/max_pids"}, {spec.LimitCPUShares, "/resources/cpu_shares"},
		{spec.LimitCPUQuota, "/resources/cpu_quota"}, {spec.LimitCPUTime, "/resources/cpu_time_ms"}, {spec.LimitDisk, "/resources/disk_bytes"}, {spec.LimitIO, "/resources/io"},
	} {
		if r.Asked(limit.name) && !slices.Contains(i.AllowDegraded, limit.name) {
			all = append(all, fault.New(fault.LimitUnavailable, "limit "+limit.name, "the process backend cannot bound a whole tree of processes").WithField(limit.field).
				WithHint("Leave it out, list \""+limit.name+"\" in isolation.allow_degraded, set rlimits for single processes, or use the namespace backend."))
		}
	}
	return all.Err()
}

// Config is the OCI configuration of the request, as far as one can express it: a
// process in the host's own tree. home is a directory of the execution, which stands in for
// /workspace.
func Config(r *spec.Request, home string) *specs.Spec {
	dir := r.Isolation.WorkingDirectory
	if dir == spec.Default().Isolation.WorkingDirectory {
		dir = home
	}
	return &specs.Spec{Version: "1.2.0", Root: &specs.Root{Path: "/"},
		Annotations: map[string]string{Annotation: string(spec.BackendProcess)},
		Process:     &specs.Process{Args: r.Command, Cwd: dir, Env: environment(r, home), Rlimits: rlimits(r)}}
}

// Annotation is the OCI annotation that names the backend of a configuration which no
// sandbox is made of.
const Annotation = "run.capsule.backend"

// environment is the documented minimum and what the request says, sorted.
func environment(r *spec.Request, home string) []string {
	all := map[string]string{"HOME": home, "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"}
	for k, v := range r.Environment {
		all[k] = v
	}
	env := make([]string, 0, len(all))
	for k, v := range all {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env
}

// rlimits are those of the request. That of processes counts everything that the user
// has on the host, so its default, which is made for a user of the sandbox's own, is
// left out.
func rlimits(r *spec.Request) []specs.POSIXRlimit {
	var list []specs.POSIXRlimit
	for name, l := range r.Resources.Rlimits {
		if name == "nproc" && !r.Asked(spec.RlimitPrefix+name) {
			continue
		}
		list = append(list, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: l.Soft, Hard: l.Hard})
	}
	slices.SortFunc(list, func(a, b specs.POSIXRlimit) int { return strings.Compare(a.Type, b.Type) })
	return list
}

// Enforcement says what holds: every wall is absent.
func Enforcement(r *spec.Request) *spec.Enforcement {
	e := &spec.Enforcement{Walls: map[string]spec.State{}, Limits: map[string]spec.State{}, CgroupVersion: "none"}
	for _, name := range spec.WallNames() {
		e.Walls[name] = spec.Absent
	}
	e.Walls[spec.WallRlimits] = spec.Enforced
	for _, name := range []string{spec.LimitMemory, spec.LimitPids, spec.LimitCPUShares, spec.LimitDisk} {
		e.Limits[name] = spec.Absent
	}
	for name, given := range map[string]bool{spec.LimitCPUQuota: r.Resources.CPUQuota != nil, spec.LimitCPUTime: r.Resources.CPUTimeMS != nil, spec.LimitIO: r.Resources.IO != nil} {
		if given {
			e.Limits[name] = spec.Absent
		}
	}
	for _, name := range []string{spec.LimitOutput, spec.LimitTimeout, spec.LimitRlimits} {
		e.Limits[name] = spec.Enforced
	}
	return e
}

// Warning is what every response of the backend says.
const Warning = "the process backend has no walls: the command could do whatever its user may do on this host, " +
	"and of the limits only output, timeout and rlimits were enforced"

// PeakWarning explains the one number that is not about the whole tree.
const PeakWarning = "max_memory_bytes is the largest resident set of one process"
