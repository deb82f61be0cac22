package main

import (
	"fmt"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/task"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// judge makes the ExecutionResponse of a command in a pod, and the same without the output
// and as short as a kubelet reads it.
func judge(o *task.Outcome) (document, message []byte) {
	r := &spec.Response{ExecutionID: o.ID, Timestamps: spec.Timestamps{Created: o.Created.UTC()}}
	if o.Err != nil {
		notStarted(r, o.Err)
		document = r.Encode(false)
	} else {
		end(r, o)
		measure(r, o)
		r.Enforcement = enforcement(o)
		if o.WallsErr != nil {
			r.Warnings = append(r.Warnings, "not all walls could be read, so some that stood may be told as absent: "+o.WallsErr.Error())
		}
		r.Output = &spec.Output{Stdout: count(&o.Stdout), Stderr: count(&o.Stderr)}
		tail := spec.OutputPolicy(o.OutputPolicy) == spec.OutputTail
		r.SetOutput(spec.WholeRunes(o.Stdout.Kept, &r.Output.Stdout, tail), spec.WholeRunes(o.Stderr.Kept, &r.Output.Stderr, tail))
		document = r.Encode(false)
		r.Stdout, r.StdoutEncoding, r.Stderr, r.StderrEncoding = nil, "", nil, ""
	}
	if message = r.Encode(false); len(message) > task.MessageMax {
		r.Enforcement, r.Warnings = nil, []string{"the rest is in the container's log"}
		if r.Error != nil {
			r.Error.Details = nil
			r.Error.Message = r.Error.Message[:min(len(r.Error.Message), 1024)]
		}
		message = r.Encode(false)
	}
	return document, message
}

// notStarted is the verdict on a command that never ran.
func notStarted(r *spec.Response, err error) {
	r.Status, r.Termination.Reason, r.Error = spec.StatusError, spec.ReasonSetupFailed, spec.ErrorFrom(err)
	switch code := fault.From(err, fault.SystemCall).Code; {
	case code == fault.Cancelled:
		r.Status, r.Termination.Reason = spec.StatusKilled, spec.ReasonKilledByCaller
	case code[:2] == "E1" || code[:2] == "E4" || code[:2] == "E5":
		r.Termination.Reason = spec.ReasonRefused
	}
}

// end says how the command ended. Of several causes the first of this order is the reason,
// as everywhere in capsule: the kernel's own count of kills for want of memory comes first.
func end(r *spec.Response, o *task.Outcome) {
	if o.Exited && o.Status.Exited() {
		code := o.Status.ExitStatus()
		r.ExitCode = &code
	} else if o.Exited {
		signal := int(o.Status.Signal())
		r.Signal = &signal
	}
	is := func(status spec.Status, reason spec.Reason, f *fault.Fault) {
		r.Status, r.Termination.Reason = status, reason
		if f != nil {
			r.Error = spec.ErrorFrom(f)
		}
	}
	switch {
	case o.Usage != nil && o.Usage.OOMKills > 0:
		is(spec.StatusKilled, spec.ReasonOOM, outOfMemory(o))
	case o.TooMuchOutput:
		is(spec.StatusKilled, spec.ReasonOutputLimit, limit(fault.OutputLimit, "wrote more than "+spec.FormatBytes(o.MaxOutputBytes)+" to one stream", "max_output_bytes", o.MaxOutputBytes))
	case o.CPUTime:
		is(spec.StatusKilled, spec.ReasonTimeoutCPU, limit(fault.CPUTimeLimit, fmt.Sprintf("used more than %d ms of CPU time", o.CPUTimeMS), "cpu_time_ms", o.CPUTimeMS))
	case o.TimedOut:
		is(spec.StatusTimeout, spec.ReasonTimeoutWall, limit(fault.Timeout, fmt.Sprintf("still running after %d ms", o.TimeoutMS), "timeout_ms", o.TimeoutMS))
	case o.Signal != 0 && r.Signal != nil:
		is(spec.StatusKilled, spec.ReasonKilledByCaller, fault.New(fault.Cancelled, "", "the pod was ended").WithHint("Somebody deleted the pod or its job, or the node needed the room."))
	case !o.Exited:
		is(spec.StatusError, spec.ReasonSetupFailed, fault.New(fault.MonitorFailed, "wait for the command", "it has ended, and its status went to another process"))
	case r.Signal != nil && *r.Signal == int(unix.SIGSYS):
		is(spec.StatusKilled, spec.ReasonSeccomp, fault.New(fault.SyscallRefused, "", "killed by a system call filter (SIGSYS), which does not tell the call"))
	case r.ExitCode != nil:
		is(spec.StatusSuccess, spec.ReasonExited, nil)
	default:
		is(spec.StatusKilled, spec.ReasonSignaled, fault.New(fault.KilledBySignal, "", "killed by signal "+strconv.Itoa(*r.Signal)+" ("+o.Status.Signal().String()+")"))
	}
	if o.UsageErr != nil || o.Usage == nil {
		text := "the container has no control group"
		if o.UsageErr != nil {
			text = o.UsageErr.Error()
		}
		r.Warnings = append(r.Warnings, "not all counters could be read, so a kill for lack of memory may go unseen: "+text)
	}
}

func limit(code fault.Code, text, name string, value int64) *fault.Fault {
	f := fault.New(code, "", text)
	f.Details = map[string]any{"limit": name, name: value}
	return f
}

func outOfMemory(o *task.Outcome) *fault.Fault {
	bytes := memoryLimit(o.Config)
	text := "the node, or a control group around the container, ran out of memory"
	if bytes > 0 {
		text = "the memory limit of " + spec.FormatBytes(bytes) + " was reached"
	}
	if o.Exited && o.Status.Exited() {
		text += "; a child was killed, and the command exited with " + strconv.Itoa(o.Status.ExitStatus())
	}
	f := limit(fault.OutOfMemory, text, "memory_bytes", bytes)
	f.Details["oom_kills"] = int64(o.Usage.OOMKills)
	return f
}

func count(c *task.Captured) spec.StreamCount {
	kept := int64(len(c.Kept))
	return spec.StreamCount{BytesTotal: c.Total, BytesKept: kept, Truncated: c.Total > kept}
}

// measure adds the counters of the kernel.
func measure(r *spec.Response, o *task.Outcome) {
	started, ended := o.Started.UTC(), o.Ended.UTC()
	r.Timestamps.Started, r.Timestamps.Completed = &started, &ended
	r.Metrics.WallTimeMS = millis(o.Ended.Sub(o.Started))
	u := o.Usage
	if u == nil {
		return
	}
	if u.CPU > 0 {
		if u.V2 { // v1 has them in hundredths of a second, of which a short command has none
			r.Metrics.UserTimeMS, r.Metrics.KernelTimeMS = millis(time.Duration(u.User)), millis(time.Duration(u.Kernel))
		}
		r.Metrics.CPUTimeMS = millis(time.Duration(u.CPU))
		r.Metrics.ThrottledMS = millis(time.Duration(u.Throttle.Time))
	}
	if u.MemoryMax > 0 {
		most, kills := int64(u.MemoryMax), int64(u.OOMKills)
		r.Metrics.MaxMemoryBytes, r.Metrics.OOMKills = &most, &kills
	}
}

func millis(d time.Duration) *float64 {
	ms := float64(d.Microseconds()) / 1000
	return &ms
}

func memoryLimit(s *specs.Spec) int64 {
	if r := s.Linux.Resources; r != nil && r.Memory != nil && r.Memory.Limit != nil {
		return *r.Memory.Limit
	}
	return 0
}

// namespaceWalls are the walls that are namespaces.
var namespaceWalls = map[specs.LinuxNamespaceType]string{
	specs.UserNamespace: spec.WallUserNamespace, specs.MountNamespace: spec.WallMountNamespace, specs.PIDNamespace: spec.WallPIDNamespace,
	specs.IPCNamespace: spec.WallIPCNamespace, specs.UTSNamespace: spec.WallUTSNamespace, specs.CgroupNamespace: spec.WallCgroupNamespace,
	specs.NetworkNamespace: spec.WallNetworkNamespace, specs.TimeNamespace: spec.WallTimeNamespace,
}

// enforcement says which walls the kernel confirmed, and which limits the configuration
// had: one that cannot be set ends the creation.
func enforcement(o *task.Outcome) *spec.Enforcement {
	walls := map[string]spec.State{}
	for _, name := range spec.WallNames() {
		walls[name] = spec.Absent
	}
	for _, kind := range o.Walls.Namespaces {
		walls[namespaceWalls[kind]] = spec.Enforced
	}
	held := func(name string, enforced bool, otherwise spec.State) {
		walls[name] = otherwise
		if enforced {
			walls[name] = spec.Enforced
		}
	}
	held(spec.WallRootfs, o.Walls.ReadonlyRoot, spec.Degraded)
	held(spec.WallCapabilities, o.Walls.NoCapabilities, spec.Degraded)
	held(spec.WallNoNewPrivs, o.Walls.NoNewPrivs, spec.Absent)
	held(spec.WallSeccomp, o.Walls.Seccomp, spec.Absent)
	held(spec.WallProcMasking, o.Walls.Masked, spec.Absent)
	held(spec.WallRlimits, len(o.Rlimits) > 0, spec.Absent)
	held(spec.WallIDMap, walls[spec.WallUserNamespace] == spec.Enforced, spec.Absent)
	return &spec.Enforcement{Walls: walls, Limits: limits(o), CgroupVersion: cgroupVersion(o)}
}

func limits(o *task.Outcome) map[string]spec.State {
	all := map[string]spec.State{spec.LimitTimeout: spec.Enforced, spec.LimitOutput: spec.Enforced}
	held := func(name string, enforced bool) {
		all[name] = spec.Absent
		if enforced {
			all[name] = spec.Enforced
		}
	}
	r := o.Config.Linux.Resources
	if r == nil {
		r = &specs.LinuxResources{}
	}
	held(spec.LimitMemory, memoryLimit(o.Config) > 0)
	held(spec.LimitPids, r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0)
	held(spec.LimitCPUShares, r.CPU != nil && r.CPU.Shares != nil)
	held(spec.LimitRlimits, len(o.Rlimits) > 0)
	if r.CPU != nil && r.CPU.Quota != nil && *r.CPU.Quota > 0 {
		all[spec.LimitCPUQuota] = spec.Enforced
	}
	if o.CPUTimeMS > 0 {
		held(spec.LimitCPUTime, o.UsageErr == nil && o.Usage != nil)
	}
	return all
}

func cgroupVersion(o *task.Outcome) string {
	switch {
	case o.Usage == nil:
		return "none"
	case o.Usage.V2:
		return "v2"
	}
	return "v1"
}
