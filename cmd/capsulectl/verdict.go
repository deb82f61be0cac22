package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// verdictLines say in words how the execution ended. A plain exit says nothing,
// unless something happened that the exit status does not show. settings are the
// flags that made req, which is nil when it is not known.
func verdictLines(r *spec.Response, req *spec.Request, settings []setting, caller syscall.Signal) []string {
	var lines []string
	for _, w := range r.Warnings {
		lines = append(lines, "warning: "+w)
	}
	if len(r.Syscalls) > 0 {
		lines = append(lines, auditLine(r))
	}
	if r.Status == spec.StatusSuccess {
		if n := r.Metrics.OOMKills; n != nil && *n > 0 && req != nil {
			lines = append(lines, fmt.Sprintf("note: the command exited by itself, but the memory limit of %s killed %s of its processes; try --memory %s",
				spec.FormatBytes(req.Resources.MemoryBytes), strconv.FormatInt(*n, 10), spec.FormatBytes(2*req.Resources.MemoryBytes)))
		}
		if names := deniedCalls(r.Denials); names != "" && r.ExitCode != nil && *r.ExitCode != 0 {
			lines = append(lines, "note: the system call filter refused some of its calls"+names+"; -v tells more, capsulectl seccomp explain why")
		}
		return lines
	}
	if r.Status == spec.StatusError {
		return append(lines, failureLines(r.Error, req, settings)...)
	}
	if line := verdict(r, req, caller); line != "" {
		lines = append(lines, line)
	}
	return lines
}

func verdict(r *spec.Response, req *spec.Request, caller syscall.Signal) string {
	if req == nil {
		return "killed: " + ending(r)
	}
	res := req.Resources
	switch r.Termination.Reason {
	case spec.ReasonOOM:
		return fmt.Sprintf("killed: out of memory at %s; try --memory %s", spec.FormatBytes(res.MemoryBytes), spec.FormatBytes(2*res.MemoryBytes))
	case spec.ReasonTimeoutWall:
		return fmt.Sprintf("killed: timed out after %s; try --timeout %s", duration(req.TimeoutMS), flagDuration(2*req.TimeoutMS))
	case spec.ReasonTimeoutCPU:
		limit := int64(0)
		if res.CPUTimeMS != nil {
			limit = *res.CPUTimeMS
		}
		return fmt.Sprintf("killed: used up its CPU time of %s; try --cpu-time %s", duration(limit), flagDuration(2*limit))
	case spec.ReasonOutputLimit:
		return fmt.Sprintf("killed: wrote more than %s; try --max-output %s or --output-policy truncate", spec.FormatBytes(res.MaxOutputBytes), spec.FormatBytes(2*max(res.MaxOutputBytes, 1<<10)))
	case spec.ReasonPidsLimit:
		return fmt.Sprintf("failed at the limit of %d processes and threads; try --max-pids %d", res.MaxPids, 2*res.MaxPids)
	case spec.ReasonDiskLimit:
		return fmt.Sprintf("failed with a full file system of %s; try --disk %s", spec.FormatBytes(res.DiskBytes), spec.FormatBytes(2*res.DiskBytes))
	case spec.ReasonSeccomp:
		return "killed: made a system call that the seccomp filter forbids" + deniedCalls(r.Denials) + "; a wider --seccomp profile may allow it"
	case spec.ReasonSignaled:
		return signaled(r)
	case spec.ReasonKilledByCaller:
		return interrupted(r, caller)
	}
	return "killed: " + string(r.Termination.Reason)
}

func signaled(r *spec.Response) string {
	if r.Signal == nil {
		return "killed by a signal"
	}
	return "killed by signal " + strconv.Itoa(*r.Signal) + " (" + signalName(syscall.Signal(*r.Signal)) + ")"
}

// interrupted is silent when the payload died of the signal that capsulectl
// passed on: who pressed Ctrl-C knows.
func interrupted(r *spec.Response, caller syscall.Signal) string {
	switch {
	case caller == 0:
		return "killed: cancelled by the caller"
	case r.Signal != nil && *r.Signal == int(caller):
		return ""
	}
	return "killed: interrupted by " + signalName(caller)
}

// failureLines are the lines of a response whose status is error: one for each
// problem. Where a flag set the field that is wrong, they name the flag.
func failureLines(e *spec.Error, req *spec.Request, settings []setting) []string {
	if e == nil {
		return []string{"failed without saying why"}
	}
	if e.Code == string(fault.CommandNotFound) && req != nil && strings.Contains(req.Command[0], ":/") {
		return []string{joinHint(e.Code+": "+e.Message, "-v is --verbose here; show a host path with --bind SRC:DEST.")}
	}
	line := func(code, pointer, message, hint string) string {
		if o := flagOf(pointer, settings); o != nil {
			message = "flag --" + o.name + ": " + message
		} else if pointer != "" {
			message = pointer + ": " + message
		}
		return joinHint(code+": "+message, hint)
	}
	text := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }
	var lines []string
	problems, _ := e.Details["problems"].([]any)
	for _, p := range problems {
		if m, ok := p.(map[string]any); ok {
			lines = append(lines, line(text(m, "code"), text(m, "pointer"), text(m, "message"), text(m, "hint")))
		}
	}
	if lines == nil {
		lines = []string{line(e.Code, text(e.Details, "field"), e.Message, e.Hint)}
	}
	return lines
}

// faultLines are the lines for an error: one for each fault.
func faultLines(err error) []string {
	var faults fault.List
	if !errors.As(err, &faults) {
		faults = fault.List{fault.From(err, fault.IO)}
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		text := string(f.Code) + ": "
		// A key of the configuration is told as its file spells it, which is Op.
		key := strings.ReplaceAll(strings.TrimPrefix(f.Field, "/"), "/", ".")
		if f.Field != "" && !strings.HasPrefix(f.Op, "flag ") && f.Op != key {
			text += f.Field + ": "
		}
		lines[i] = joinHint(text+f.Message(), f.Remedy())
	}
	return lines
}

// joinHint makes one line of a message and its remedy, which is a sentence.
func joinHint(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + ". " + hint
}

// truncationNote warns of output that the printed response does not hold.
func truncationNote(r *spec.Response) string {
	if r.Output == nil {
		return ""
	}
	var parts []string
	part := func(name string, c spec.StreamCount) {
		if c.Truncated {
			parts = append(parts, fmt.Sprintf("%s of %s of %s", spec.FormatBytes(c.BytesKept), spec.FormatBytes(c.BytesTotal), name))
		}
	}
	part("stdout", r.Output.Stdout)
	part("stderr", r.Output.Stderr)
	if len(parts) == 0 {
		return ""
	}
	return "note: kept " + strings.Join(parts, " and ") + "; --max-output keeps more"
}

// deniedCalls is " (name, name)" or empty.
func deniedCalls(denials []spec.Denial) string {
	var names []string
	for _, d := range denials {
		if d.Kind == "syscall" {
			names = append(names, d.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// signalName is SIGTERM for 15; a number that has no name is itself.
func signalName(s syscall.Signal) string {
	if name := signalText(s); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(s))
}
