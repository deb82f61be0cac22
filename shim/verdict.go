package shim

import (
	"fmt"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// verdict is how an execution ended, in the words of the response.
type verdict struct {
	status   spec.Status
	reason   spec.Reason
	exitCode *int
	signal   *int
	err      *spec.Error
}

// judge makes the verdict from what was observed. When several things struck
// at once the first of this order is the reason: out of memory; set-up failed;
// output limit; CPU time; wall clock; the caller's wish, unless the payload
// ended by itself before it was killed; then how it ended. Memory comes first because the kernel's own count proves
// it, whoever else wanted to end the execution in the same moment.
func judge(req *spec.Request, o observation) verdict {
	v := verdict{}
	if o.exited {
		if o.status.Exited() {
			v.exitCode = ptr(o.status.ExitStatus())
		} else if o.status.Signaled() {
			v.signal = ptr(int(o.status.Signal()))
		}
	} else if o.failure == nil {
		v.signal = ptr(int(syscall.SIGKILL)) // with process 1, by the kernel's rule
	}
	kills := int64(0)
	if o.stats.OOMKills != nil {
		kills = *o.stats.OOMKills
	}
	clean := v.exitCode != nil && *v.exitCode == 0
	switch {
	case o.failure != nil && kills == 0:
		return failed(o.failure)
	case kills > 0 && !clean:
		return v.end(spec.StatusKilled, spec.ReasonOOM, oomFault(req, o, kills))
	case o.outputLimit:
		return v.end(spec.StatusKilled, spec.ReasonOutputLimit, limitFault(fault.OutputLimit,
			fmt.Sprintf("wrote more than %s to one stream", spec.FormatBytes(req.Resources.MaxOutputBytes)), "max_output_bytes", req.Resources.MaxOutputBytes))
	case o.cpuTime:
		return v.end(spec.StatusKilled, spec.ReasonTimeoutCPU, limitFault(fault.CPUTimeLimit,
			fmt.Sprintf("used more than %d ms of CPU time", *req.Resources.CPUTimeMS), "cpu_time_ms", *req.Resources.CPUTimeMS))
	case o.timeout:
		return v.end(spec.StatusTimeout, spec.ReasonTimeoutWall, limitFault(fault.Timeout,
			fmt.Sprintf("still running after %d ms", req.TimeoutMS), "timeout_ms", req.TimeoutMS))
	case o.cancelled && v.exitCode == nil, v.signal != nil && o.callerSignal == syscall.Signal(*v.signal):
		return v.end(spec.StatusKilled, spec.ReasonKilledByCaller, fault.New(fault.Cancelled, "", "ended by the caller"))
	case v.exitCode != nil:
		return v.end(spec.StatusSuccess, spec.ReasonExited, nil)
	case !o.exited:
		return failed(fault.New(fault.MonitorFailed, "wait for the command", "process 1 of the sandbox died and nothing of ours killed it"))
	case *v.signal == int(syscall.SIGSYS):
		return v.end(spec.StatusKilled, spec.ReasonSeccomp, fault.New(fault.SyscallRefused, "", "killed by the system call filter (SIGSYS)"))
	}
	f := fault.New(fault.KilledBySignal, "", fmt.Sprintf("killed by signal %d (%s)", *v.signal, signalName(*v.signal)))
	return v.end(spec.StatusKilled, spec.ReasonSignaled, f)
}

func (v verdict) end(status spec.Status, reason spec.Reason, f *fault.Fault) verdict {
	v.status, v.reason = status, reason
	if f != nil {
		v.err = spec.ErrorFrom(f)
	}
	return v
}

// failed is the verdict of an execution in which the payload never ran, or
// whose end nobody saw.
func failed(err error) verdict {
	reason := spec.ReasonSetupFailed
	code := fault.From(err, fault.SystemCall).Code
	if code == fault.Cancelled {
		return verdict{status: spec.StatusKilled, reason: spec.ReasonKilledByCaller, err: spec.ErrorFrom(err)}
	}
	switch code[:2] {
	case "E1", "E4", "E5":
		reason = spec.ReasonRefused
	}
	return verdict{status: spec.StatusError, reason: reason, err: spec.ErrorFrom(err)}
}

func oomFault(req *spec.Request, o observation, kills int64) *fault.Fault {
	limit := req.Resources.MemoryBytes
	f := limitFault(fault.OutOfMemory, "the memory limit of "+spec.FormatBytes(limit)+" was reached", "memory_bytes", limit)
	f.Details["oom_kills"] = kills
	if o.stats.MemoryPeak != nil {
		f.Details["peak_bytes"] = *o.stats.MemoryPeak
	}
	return f
}

// limitFault is a fault about a limit, with its name and value.
func limitFault(code fault.Code, message, name string, value int64) *fault.Fault {
	f := fault.New(code, "", message)
	f.Details = map[string]any{"limit": name, name: value}
	return f
}

func signalName(n int) string {
	if name := syscall.Signal(n).String(); name != "" {
		return name
	}
	return "unknown"
}

// metricsOf are the counters of the kernel in the units of the contract.
func metricsOf(o observation, initCounts bool) spec.Metrics {
	s := o.stats
	m := spec.Metrics{MaxMemoryBytes: s.MemoryPeak, IOBytesRead: s.IORead, IOBytesWritten: s.IOWritten, MaxPids: s.PidsPeak, OOMKills: s.OOMKills}
	m.CPUTimeMS, m.UserTimeMS, m.KernelTimeMS, m.ThrottledMS = millis(s.CPU), millis(s.User), millis(s.Kernel), millis(s.Throttled)
	if m.MaxPids != nil && initCounts {
		m.MaxPids = ptr(max(*m.MaxPids-1, 0))
	}
	if o.failure == nil {
		m.WallTimeMS = millis(&o.wall)
	}
	return m
}

func millis(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	return ptr(float64(d.Microseconds()) / 1000)
}

func ptr[T any](v T) *T { return &v }
