package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/process"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// finish makes the response and writes it down before anybody is told.
func (e *execution) finish() {
	r := e.verdictResponse()
	e.writeTimes()
	e.response = r.Encode(false)
	if err := layout.WriteFile(e.dir.Result(), e.response); err != nil {
		// Without a record the result may be lost with this process; the caller
		// that waits still gets it, and is told.
		e.response = unrecorded(r, len(e.response), err)
		e.unwritten = true
	}
}

// Pauses between two attempts to record a result.
const (
	recordPause    = 100 * time.Millisecond
	recordPauseMax = 2 * time.Second
)

// keepRecording returns when the result is written down, which takes until there
// is space again where there was none. Callers were told it meanwhile and are to
// find the same later; nobody else knows it, so this process stays for it.
func (e *execution) keepRecording() {
	for pause := recordPause; e.unwritten; pause = min(2*pause, recordPauseMax) {
		err := layout.WriteFile(e.dir.Result(), e.response)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return // it is written, or the directory is gone and nobody asks
		}
		time.Sleep(pause) // space that comes back sends no event
	}
}

// unrecorded is a response that could not be written down. One that is too large for a
// message, and so would be read from its record, goes without the output: a
// success without it would be a lie.
func unrecorded(r *spec.Response, size int, err error) []byte {
	r.Warnings = append(r.Warnings, "the result could not be recorded: "+err.Error())
	if size > inlineMax {
		r.Stdout, r.Stderr, r.StdoutEncoding, r.StderrEncoding = nil, nil, "", ""
		if r.Output != nil {
			for _, n := range []*spec.StreamCount{&r.Output.Stdout, &r.Output.Stderr} {
				n.BytesKept, n.Truncated = 0, n.BytesTotal > 0
			}
		}
		r.Warnings = append(r.Warnings, "the output is too large to be delivered without a record")
		if r.Status == spec.StatusSuccess {
			r.Status, r.Error = spec.StatusError, spec.ErrorFrom(err)
		}
	}
	return r.Encode(false)
}

func (e *execution) verdictResponse() *spec.Response {
	o := e.observed()
	r := &spec.Response{ExecutionID: e.boot.ExecutionID}
	defer func() { r.Warnings = e.warnings }() // the measures add to them
	r.Timestamps.Created = e.created.UTC()
	if e.req == nil {
		v := failed(o.failure)
		r.Status, r.Termination.Reason, r.Error = v.status, v.reason, v.err
		return r
	}
	o.killedCall, o.killedHard = e.denied.Killed()
	r.Denials = e.denied.List()
	if e.sandbox != nil {
		r.Syscalls = e.watched.List()
	}
	v := judge(e.req, o)
	if o.statsErr != nil {
		e.warnOnce("not all counters could be read, so a kill for lack of memory may go unseen: " + o.statsErr.Error())
	}
	if e.sandbox != nil {
		for _, text := range remarks(v, o) {
			e.warnOnce(text)
		}
		v = e.addOutput(r, v)
		e.addMeasures(r, o)
	}
	r.Status, r.Termination.Reason, r.ExitCode, r.Signal, r.Error = v.status, v.reason, v.exitCode, v.signal, v.err
	return r
}

// addOutput adds what the payload wrote. Output that could not be stored makes
// a good verdict an error: a response without it would be a lie. The reason stays
// how the payload ended.
func (e *execution) addOutput(r *spec.Response, v verdict) verdict {
	r.Output = &spec.Output{Stdout: e.stdio.stdout.Counts(), Stderr: e.stdio.stderr.Counts()}
	var err1, err2 error
	if e.inFiles = e.saveLarge(); !e.inFiles {
		var stdout, stderr []byte
		stdout, err1 = e.stdio.stdout.Bytes()
		stderr, err2 = e.stdio.stderr.Bytes()
		tail := e.req.Resources.OutputPolicy == spec.OutputTail
		r.SetOutput(spec.WholeRunes(stdout, &r.Output.Stdout, tail), spec.WholeRunes(stderr, &r.Output.Stderr, tail))
	}
	for _, err := range []error{err1, err2, asError(e.stdio.stdout.Err()), asError(e.stdio.stderr.Err())} {
		switch {
		case err == nil:
		case v.status == spec.StatusSuccess:
			v.status, v.err = spec.StatusError, spec.ErrorFrom(err)
		default:
			e.warnOnce("output is incomplete: " + err.Error())
		}
	}
	return v
}

// asError keeps a nil *Fault from becoming a non-nil error.
func asError(f *fault.Fault) error {
	if f == nil {
		return nil
	}
	return f
}

func (e *execution) addMeasures(r *spec.Response, o observation) {
	r.Metrics = metricsOf(o, e.plan.HasInit)
	r.Metrics.StartupUS = e.clock.total()
	r.Metrics.StartupPhases = e.clock.micros
	r.Timeline = e.timeline.end(o.wall)
	// The sandbox stamped both moments on the monotonic clock; their distance
	// from now gives the wall clock without a second clock inside.
	now, mono := time.Now(), monotonic()
	started := now.Add(e.started - mono).UTC()
	r.Timestamps.Started = &started
	if o.failure == nil {
		r.Timestamps.Completed = ptr(started.Add(o.wall))
	}
	r.Enforcement = e.enforcement()
}

// enforcement says what the kernel confirmed: every step of the plan succeeded,
// so its walls stand; limits were read back from the cgroup.
func (e *execution) enforcement() *spec.Enforcement {
	if e.bare != nil {
		held := process.Enforcement(e.req)
		held.PolicyHash = e.policyHash()
		return held
	}
	walls := map[string]spec.State{}
	for _, name := range spec.WallNames() {
		switch {
		case slices.Contains(e.facts.degraded, name), slices.Contains(e.plan.Partial, name):
			walls[name] = spec.Degraded
		case slices.Contains(e.plan.Walls, name):
			walls[name] = spec.Enforced
		case name == spec.WallIDMap && !e.hasBinds(), name == spec.WallIDMap && e.foreign != nil && !e.idmapped():
			// Nothing to map.
		case name == spec.WallIDMap:
			walls[name] = spec.Enforced
		default:
			walls[name] = spec.Absent
		}
	}
	return &spec.Enforcement{Walls: walls, Limits: e.limits(), CgroupVersion: string(e.version), PolicyHash: e.policyHash()}
}

// idmapped tells whether a tree of a bundle from outside is mounted with its ids mapped.
func (e *execution) idmapped() bool {
	return slices.ContainsFunc(e.plan.Sources, func(s plan.Source) bool { return len(s.UIDMap) > 0 })
}

func (e *execution) hasBinds() bool {
	i := e.req.Isolation
	return len(i.ReadonlyPaths)+len(i.WritablePaths)+len(i.BindMounts) > 0
}

func (e *execution) limits() map[string]spec.State {
	limits := map[string]spec.State{spec.LimitTimeout: spec.Enforced, spec.LimitOutput: spec.Enforced, spec.LimitDisk: spec.Enforced, spec.LimitRlimits: spec.Enforced}
	for _, name := range []string{spec.LimitMemory, spec.LimitPids, spec.LimitCPUShares, spec.LimitCPUQuota} {
		if name == spec.LimitCPUQuota && e.req.Resources.CPUQuota == nil {
			continue
		}
		limits[name] = spec.Absent
		if e.group != nil && e.group.Confirmed[name] {
			limits[name] = spec.Enforced
		} else if slices.Contains(e.boundless, name) {
			e.warnOnce("the bundle has no limit for " + name)
		} else {
			e.warnOnce("limit " + name + " is not enforced on this host")
		}
	}
	if e.req.Resources.IO.Bounds() {
		limits[spec.LimitIO] = spec.Absent
		if e.group != nil && e.group.Confirmed[spec.LimitIO] {
			limits[spec.LimitIO] = spec.Enforced
		} else {
			e.warnOnce("limit " + spec.LimitIO + " is not enforced on this host")
		}
	}
	if slices.Contains(e.boundless, spec.LimitDisk) {
		delete(limits, spec.LimitDisk) // the sizes of its tmpfs are the bundle's
	}
	if e.req.Resources.CPUTimeMS != nil {
		limits[spec.LimitCPUTime] = spec.Enforced
		if e.group == nil {
			limits[spec.LimitCPUTime] = spec.Absent
			e.warnOnce("limit " + spec.LimitCPUTime + " is not enforced on this host")
		}
	}
	if e.group != nil && e.group.Confirmed[spec.LimitMemory] && !e.group.Confirmed[cgroup.LimitSwap] {
		limits[spec.LimitMemory] = spec.Degraded
		e.warnOnce("swap is not limited on this host: the memory limit bounds memory alone")
	}
	for _, name := range e.facts.degraded {
		if state, ok := limits[name]; ok && state != spec.Absent {
			limits[name] = spec.Degraded
		}
	}
	return limits
}

func (e *execution) warnOnce(text string) {
	if !slices.Contains(e.warnings, text) {
		e.warnings = append(e.warnings, text)
	}
}

// builtinPolicy names the policy of a supervisor without configuration; its
// number rises when the rules of shim/host change.
const builtinPolicy = "capsule built-in policy 1"

// policyHash identifies the policy that was in force.
func (e *execution) policyHash() string {
	if e.boot.Policy != nil {
		return e.boot.Policy.Hash
	}
	sum := sha256.Sum256([]byte(builtinPolicy))
	return hex.EncodeToString(sum[:])
}

// logLine goes to shim.log of the execution.
func logLine(text string) { _, _ = os.Stderr.WriteString("capsule-shim: " + text + "\n") }
