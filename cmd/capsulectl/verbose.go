package main

import (
	"fmt"
	"sort"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

// verboseLines show the metrics and what the kernel enforced. What was not
// measured is left out, never shown as zero. req may be nil.
func verboseLines(r *spec.Response, req *spec.Request) []string {
	lines := []string{fmt.Sprintf("execution %s: %s, %s", r.ExecutionID, r.Status, ending(r))}
	m := r.Metrics
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	flush := func(name string) {
		if len(parts) > 0 {
			lines = append(lines, name+": "+strings.Join(parts, ", "))
		}
		parts = nil
	}
	millis := func(name string, v *float64) {
		if v != nil {
			add("%s %s", name, durationFloat(*v))
		}
	}
	millis("wall", m.WallTimeMS)
	millis("cpu", m.CPUTimeMS)
	millis("user", m.UserTimeMS)
	millis("kernel", m.KernelTimeMS)
	millis("throttled", m.ThrottledMS)
	if m.StartupUS != nil {
		add("started in %s", durationFloat(float64(*m.StartupUS)/1000))
	}
	flush("time")
	if p := m.Pressure; p != nil {
		millis("for a processor", p.CPUSomeMS)
		millis("for memory", p.MemorySomeMS)
		millis("for a disk", p.IOSomeMS)
		flush("waited")
	}
	if m.MaxMemoryBytes != nil {
		add("memory peak %s", spec.FormatBytes(*m.MaxMemoryBytes)+of(req))
	}
	if m.MaxPids != nil {
		add("processes peak %d", *m.MaxPids)
	}
	if m.OOMKills != nil && *m.OOMKills > 0 {
		add("killed for memory %d", *m.OOMKills)
	}
	if m.IOBytesRead != nil && m.IOBytesWritten != nil {
		add("disk read %s, written %s", spec.FormatBytes(*m.IOBytesRead), spec.FormatBytes(*m.IOBytesWritten))
	}
	if o := r.Output; o != nil {
		add("stdout %s, stderr %s", spec.FormatBytes(o.Stdout.BytesTotal), spec.FormatBytes(o.Stderr.BytesTotal))
	}
	flush("use")
	return append(lines, enforcementLines(r)...)
}

func ending(r *spec.Response) string {
	switch {
	case r.ExitCode != nil:
		return fmt.Sprintf("%s with %d", r.Termination.Reason, *r.ExitCode)
	case r.Signal != nil:
		return fmt.Sprintf("%s with signal %d", r.Termination.Reason, *r.Signal)
	}
	return string(r.Termination.Reason)
}

func of(req *spec.Request) string {
	if req == nil {
		return ""
	}
	return " of " + spec.FormatBytes(req.Resources.MemoryBytes)
}

func enforcementLines(r *spec.Response) []string {
	e := r.Enforcement
	if e == nil {
		return nil
	}
	lines := []string{"walls: " + states(e.Walls), "limits: " + states(e.Limits) + " (cgroup " + e.CgroupVersion + ")"}
	for _, d := range r.Denials {
		line := fmt.Sprintf("denied: %s %s, %d times", d.Kind, d.Name, d.Count)
		if d.Detail != "" {
			line += " (" + d.Detail + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

// states is "enforced a b c; absent d", the strongest state first.
func states(m map[string]spec.State) string {
	var groups []string
	for _, state := range []spec.State{spec.Enforced, spec.Degraded, spec.Absent} {
		var names []string
		for name, s := range m {
			if s == state {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			sort.Strings(names)
			groups = append(groups, string(state)+" "+strings.Join(names, " "))
		}
	}
	return strings.Join(groups, "; ")
}
