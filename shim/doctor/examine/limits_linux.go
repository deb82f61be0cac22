package examine

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/shim"
	"github.com/capsule-run/capsule/shim/doctor"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// asking are the resources of a request that asks for one limit, and for nothing
// that a host may lack besides. Empty: the limit needs nothing of the host.
func asking(limit string) string {
	switch limit {
	case spec.LimitMemory:
		return `{"memory_bytes":67108864}`
	case spec.LimitPids:
		return `{"max_pids":50}`
	case spec.LimitCPUShares:
		return `{"cpu_shares":512}`
	case spec.LimitCPUQuota:
		return `{"cpu_quota":0.5}`
	case spec.LimitCPUTime:
		return `{"cpu_time_ms":10000}`
	case spec.LimitIO:
		return `{"io":{"read_bytes_per_second":104857600}}`
	}
	return ""
}

// controllerOf is what enforces a limit.
func controllerOf(limit string) string {
	switch limit {
	case spec.LimitMemory:
		return cgroup.Memory
	case spec.LimitPids:
		return cgroup.Pids
	case spec.LimitIO:
		return cgroup.IO
	}
	return cgroup.CPU
}

// limits puts a line for each limit into the report.
func (x *examiner) limits(out *shim.Outcome) {
	for _, name := range spec.LimitNames() {
		if name == spec.LimitRlimits {
			continue // among the walls
		}
		ask := asking(name)
		switch needsHost := ask != ""; {
		case !needsHost && out == nil:
			x.add(doctor.Check{Kind: doctor.KindLimit, Name: name, State: doctor.Blocked, Detail: "not reached: no sandbox can be built"})
		case !needsHost:
			x.add(doctor.Check{Kind: doctor.KindLimit, Name: name, State: doctor.Works})
		case out == nil || x.failed[shim.WithoutLimits] != nil:
			x.limitAlone(name)
		default:
			x.limit(name, `{"command":["true"],"timeout_ms":20000,"resources":`+ask+`}`)
		}
	}
}

// limit asks for one limit and reports whether the kernel confirmed it.
func (x *examiner) limit(name, document string) {
	out := x.try(document)
	if out.Fault != nil {
		f := fault.From(out.Fault, fault.LimitUnavailable)
		x.bad(doctor.KindLimit, name, doctor.Degraded, x.limitFault(name, f))
		return
	}
	state := spec.Absent
	if e := out.Response.Enforcement; e != nil {
		state = e.Limits[name]
	}
	switch {
	case state == spec.Enforced:
		x.add(doctor.Check{Kind: doctor.KindLimit, Name: name, State: doctor.Works})
	case name == spec.LimitMemory && state == spec.Degraded:
		c := doctor.Lookup("swap_accounting")
		x.add(doctor.Check{Kind: doctor.KindLimit, Name: name, State: doctor.Degraded, Cause: c.ID, By: c.Setting,
			Detail: "swap is not limited", Fix: c.Commands(doctor.Place{})})
	default:
		x.bad(doctor.KindLimit, name, doctor.Degraded, x.limitFault(name, fault.New(fault.LimitUnavailable, "limit "+name, "the kernel did not confirm it")))
	}
}

// limitAlone makes a control group with one limit, for hosts on which no
// sandbox can be built.
func (x *examiner) limitAlone(name string) {
	memory, pids, shares, quota, period := int64(64<<20), int64(50), uint64(512), int64(50000), uint64(100000)
	r := map[string]*specs.LinuxResources{
		spec.LimitMemory:    {Memory: &specs.LinuxMemory{Limit: &memory, Swap: &memory}},
		spec.LimitPids:      {Pids: &specs.LinuxPids{Limit: &pids}},
		spec.LimitCPUShares: {CPU: &specs.LinuxCPU{Shares: &shares}},
		spec.LimitCPUQuota:  {CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}},
		spec.LimitCPUTime:   {},
	}[name]
	if r == nil {
		x.add(doctor.Check{Kind: doctor.KindLimit, Name: name, State: doctor.Blocked, Detail: "not reached: no sandbox can be built"})
		return
	}
	err := makeGroup(r)
	if err == nil {
		x.add(doctor.Check{Kind: doctor.KindLimit, Name: name, State: doctor.Works, Detail: "tried alone"})
		return
	}
	x.bad(doctor.KindLimit, name, doctor.Degraded, x.limitFault(name, fault.From(err, fault.LimitUnavailable)))
}

// makeGroup makes a group with the limits of r and takes it away again.
func makeGroup(r *specs.LinuxResources) error {
	h, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if !h.Usable() {
		return fault.New(fault.LimitUnavailable, "make a control group", "no hierarchy can be used")
	}
	g, err := h.Create("doctor-"+strconv.Itoa(os.Getpid()), r, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return g.Remove(ctx)
}

// limitFault adds to f what the control groups say about the limit.
func (x *examiner) limitFault(name string, f *fault.Fault) *fault.Fault {
	out := *f
	if out.Details["paths"] != nil {
		return &out // it is not the control groups
	}
	out.Details = map[string]any{"limit": name, "controller": controllerOf(name)}
	return &out
}

// settleCgroup notes where this process is and prepares the place as an
// execution would. The result puts everything back.
func (x *examiner) settleCgroup() (restore func()) {
	self, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		x.report.Cgroup = ownCgroup(string(self))
	}
	h, err := cgroup.Detect()
	if err != nil {
		x.bad(doctor.KindStep, "cgroup", doctor.Blocked, fault.From(err, fault.Cgroup))
		return func() {}
	}
	x.report.CgroupMode = string(h.Mode)
	undo := h.Trace()
	detail := string(h.Mode)
	if err := h.Prepare(); err != nil {
		detail += ": " + err.Error()
	}
	if h.Mode == cgroup.ModeNone {
		f := fault.New(fault.LimitUnavailable, "find control groups", "none are mounted")
		f.Details = map[string]any{"controller": cgroup.Memory}
		x.bad(doctor.KindStep, "cgroup", doctor.Degraded, f)
		return func() {}
	}
	x.add(doctor.Check{Kind: doctor.KindStep, Name: "cgroup", State: doctor.Works, Detail: detail})
	return func() {
		if err := undo(); err != nil {
			x.report.Left += err.Error() + "\n"
		}
	}
}

// ownCgroup is the v2 line of /proc/self/cgroup, or else the first.
func ownCgroup(text string) string {
	first := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "0::") {
			return line
		}
		if first == "" {
			first = line
		}
	}
	return first
}
