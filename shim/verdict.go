//go:build unix

package shim

import (
	"fmt"
	"strconv"
	"strings"
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
// ended by itself before it was killed; the system call filter; and, when the
// payload failed, a full disk, then refused forks; then how it ended. Memory comes first because the kernel's own count proves
// it, whoever else wanted to end the execution in the same moment; a kill counts
// when the payload itself went on and exited 0, too, because where the kernel
// ends the whole group it could not have.
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
	failing := v.exitCode == nil || *v.exitCode != 0
	switch {
	case o.failure != nil && kills == 0:
		return failed(o.failure)
	case kills > 0:
		return v.end(spec.StatusKilled, spec.ReasonOOM, oomFault(req, o, kills))
	case o.outputLimit:
		return v.end(spec.StatusKilled, spec.ReasonOutputLimit, limitFault(fault.OutputLimit,
			fmt.Sprintf("wrote more than %s to one stream", spec.FormatBytes(req.Resources.MaxOutputBytes)), "max_output_bytes", req.Resources.MaxOutputBytes))
	case o.cpuTime:
		return v.end(spec.StatusKilled, spec.ReasonTimeoutCPU, limitFault(fault.CPUTimeLimit,
			fmt.Sprintf("used more than %d ms of CPU time", *req.Resources.CPUTimeMS), "cpu_time_ms", *req.Resources.CPUTimeMS))
	case o.timeout:
		return v.end(spec.StatusTimeout, spec.ReasonTimeoutWall, timeoutFault(req, o))
	case o.cancelled && v.exitCode == nil, v.signal != nil && o.callerSignal == syscall.Signal(*v.signal):
		return v.end(spec.StatusKilled, spec.ReasonKilledByCaller, fault.New(fault.Cancelled, "", "ended by the caller"))
	case !o.exited:
		return failed(fault.New(fault.MonitorFailed, "wait for the command", "process 1 of the sandbox died and nothing of ours killed it"))
	case v.signal != nil && (*v.signal == int(syscall.SIGSYS) || *v.signal == int(syscall.SIGKILL) && o.killedHard):
		return v.end(spec.StatusKilled, spec.ReasonSeccomp, filterFault(o))
	case failing && len(o.full) > 0:
		return v.end(spec.StatusKilled, spec.ReasonDiskLimit, diskFault(req, o))
	case failing && refusedForks(o) > 0:
		f := limitFault(fault.ProcessLimit, forksText(o)+"; then the command failed", "max_pids", req.Resources.MaxPids)
		f.Details["refused"] = refusedForks(o)
		return v.end(spec.StatusKilled, spec.ReasonPidsLimit, f)
	case v.exitCode != nil:
		return v.end(spec.StatusSuccess, spec.ReasonExited, nil)
	}
	f := fault.New(fault.KilledBySignal, "", fmt.Sprintf("killed by signal %d (%s)", *v.signal, signalName(*v.signal)))
	if hint := rlimitSignal(*v.signal); hint != "" {
		f.Hint = hint
	}
	return v.end(spec.StatusKilled, spec.ReasonSignaled, f)
}

// rlimitSignal is a hint for the signals that say that an rlimit was reached.
// Nothing but their number tells; the payload can send them to itself.
func rlimitSignal(signal int) string {
	switch syscall.Signal(signal) {
	case syscall.SIGXFSZ:
		return "A file would have grown beyond rlimits.fsize, which follows disk_bytes unless the request sets it."
	case syscall.SIGXCPU:
		return "One process used up rlimits.cpu, in seconds."
	}
	return ""
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
	text := "the memory limit of " + spec.FormatBytes(limit) + " was reached"
	if hits := o.stats.MemoryLimitHits; hits != nil && *hits == 0 {
		text = "the host, or a control group around the execution, ran out of memory before the limit of " + spec.FormatBytes(limit) + " was reached"
	}
	if o.exited && o.status.Exited() {
		text += "; a child was killed, and the command exited with " + strconv.Itoa(o.status.ExitStatus())
	}
	f := limitFault(fault.OutOfMemory, text, "memory_bytes", limit)
	f.Details["oom_kills"] = kills
	if o.stats.MemoryPeak != nil {
		f.Details["peak_bytes"] = *o.stats.MemoryPeak
	}
	return f
}

// timeoutFault tells what the processes were doing when the time was over.
func timeoutFault(req *spec.Request, o observation) *fault.Fault {
	f := limitFault(fault.Timeout, fmt.Sprintf("still running after %d ms", req.TimeoutMS), "timeout_ms", req.TimeoutMS)
	if len(o.states) > 0 {
		states := make(map[string]any, len(o.states))
		for state, n := range o.states {
			states[state] = n
		}
		f.Details["processes"] = states
	}
	return f
}

// refusedForks counts what max_pids refused; 0 also when the limit of a group
// around the execution did.
func refusedForks(o observation) int64 {
	hits, peak := o.stats.PidsLimitHits, o.stats.PidsPeak
	most := o.pidsLimit
	if o.initCounts {
		most++
	}
	if hits == nil || o.pidsLimit == 0 || peak != nil && *peak < most {
		return 0
	}
	return *hits
}

func forksText(o observation) string {
	return fmt.Sprintf("the limit of %d processes and threads refused %d more", o.pidsLimit, refusedForks(o))
}

func diskFault(req *spec.Request, o observation) *fault.Fault {
	f := limitFault(fault.DiskLimit, disksText(o)+" when the command failed", "disk_bytes", req.Resources.DiskBytes)
	var bytes, inodes []string
	for _, d := range o.full {
		if d.Bytes {
			bytes = append(bytes, d.Path)
		}
		if d.Inodes {
			inodes = append(inodes, d.Path)
		}
	}
	f.Details["full_of_bytes"], f.Details["full_of_inodes"] = bytes, inodes
	return f
}

func disksText(o observation) string {
	var parts []string
	for _, d := range o.full {
		if d.Bytes {
			parts = append(parts, d.Path+" had no space left")
		} else {
			parts = append(parts, d.Path+" had no inodes left")
		}
	}
	return strings.Join(parts, ", ")
}

// remarks are what the reason does not tell: limits that struck without ending
// the execution, and processes that could not be ended.
func remarks(v verdict, o observation) []string {
	var list []string
	if refusedForks(o) > 0 && v.reason != spec.ReasonPidsLimit {
		list = append(list, forksText(o))
	}
	if len(o.full) > 0 && v.reason != spec.ReasonDiskLimit {
		list = append(list, disksText(o)+" when the command ended")
	}
	if o.unkilled != "" {
		list = append(list, "processes were killed and are still there after "+teardownTime.String()+": "+o.unkilled)
	}
	return list
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
	m.Pressure = o.pressure
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

// filterFault names the call that ended the payload, where that is known: the
// kernel does not tell.
func filterFault(o observation) *fault.Fault {
	if o.killedCall == "" {
		return fault.New(fault.SyscallRefused, "", "killed by a system call filter (SIGSYS), which does not tell the call").
			WithHint("The payload's own filter, or SCMP_ACT_KILL_THREAD or SCMP_ACT_TRAP in a filter that came with the request.")
	}
	f := fault.New(fault.SyscallRefused, "", "killed by the system call filter for "+o.killedCall)
	f.Details = map[string]any{"syscall": o.killedCall}
	return f
}
