package shim

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/shim/denials"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// seccomp gets the compiled filter.
func (t *translation) seccomp(boot shimapi.Bootstrap, i spec.Isolation) error {
	s := i.Seccomp
	cache := seccomp.Cache{Dir: boot.StateDir.Seccomp(), Helper: boot.SeccompHelper}
	unconfined := boot.Policy != nil && boot.Policy.AllowUnconfined
	var err error
	switch {
	case s.Custom != nil:
		t.object, t.foreign = string(s.Custom), true
		if t.filter, err = cache.Object(context.Background(), s.Custom); err == nil && !unconfined {
			err = refuseOpen(s.Custom)
		}
	case s.Name == spec.SeccompUnconfined && slices.Contains(i.Require, spec.WallSeccomp) && !slices.Contains(i.AllowDegraded, spec.WallSeccomp):
		return fault.New(fault.InvalidValue, "choose seccomp profile", "unconfined is no filter, and isolation.require names seccomp").WithField("/isolation/seccomp").
			WithHint("Choose another profile, or drop seccomp from isolation.require.")
	case s.Name == spec.SeccompUnconfined && unconfined:
	case s.Name == spec.SeccompUnconfined:
		return fault.New(fault.NotAuthorised, "choose seccomp profile", "policy does not allow unconfined").WithField("/isolation/seccomp").
			WithHint("Use the default or the network profile, or give an OCI linux.seccomp object of your own.")
	case s.Name == spec.SeccompAudit:
		return t.auditing(cache)
	default:
		t.profile = s.Name
		if t.object, err = seccomp.OCI(s.Name); err == nil {
			t.filter, err = cache.Named(context.Background(), s.Name)
		}
		// The default may be missing where the request says so; a filter that
		// was chosen may not.
		if errors.Is(err, seccomp.ErrNoLibrary) && s.Name == spec.SeccompDefault && slices.Contains(i.AllowDegraded, spec.WallSeccomp) {
			t.object = ""
			t.warnings = append(t.warnings, "there is no system call filter: "+seccomp.ErrNoLibrary.Error())
			return nil
		}
	}
	if err != nil {
		f := fault.From(err, fault.Seccomp)
		if f.Field == "" || f.Field == "linux.seccomp" {
			f.Field = "/isolation/seccomp"
		}
	}
	return err
}

// refuseOpen refuses a filter that lets through what it does not name: next to
// the hundreds of calls of a kernel that is as good as none. The object was
// compiled, so it is known to be well-formed.
func refuseOpen(object []byte) error {
	var s struct {
		DefaultAction specs.LinuxSeccompAction `json:"defaultAction"`
	}
	if err := json.Unmarshal(object, &s); err != nil {
		return fault.Wrap(fault.Seccomp, "read filter", err)
	}
	switch s.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return fault.New(fault.NotAuthorised, "choose seccomp profile", "policy does not allow a filter whose default is "+string(s.DefaultAction)).
			WithField("/isolation/seccomp").
			WithHint("List what the command may call, with SCMP_ACT_ERRNO as the default; `capsulectl seccomp show default` is a beginning. Policy that allows unconfined allows this as well.")
	}
	return nil
}

// fewFiles is the limit of open files below which the kernel may have no
// descriptor for the listener.
const fewFiles = 16

// unrecordedDenials is what a response says when denials is not known.
const unrecordedDenials = "system calls that the filter refuses are not recorded in this execution: denials says nothing of them"

// listen decides how the filter is loaded. Without a listener refusals are the
// kernel's own and nobody learns of them.
func (t *translation) listen(f *plan.Facts) {
	if len(t.filter) == 0 {
		return
	}
	f.FilterFirst = t.profile == spec.SeccompDefault || t.profile == spec.SeccompNetwork
	if !t.noInit && (!t.foreign || answersStart(t.filter)) {
		f.Listener = denials.Flags()
	}
	if f.Listener == 0 {
		f.Filter = bpf.Plain(t.filter)
		return
	}
	few := false
	for _, l := range t.config.Process.Rlimits {
		few = few || l.Type == "RLIMIT_NOFILE" && l.Soft < fewFiles
	}
	if few || denials.Filtered() {
		f.Fallback = bpf.Plain(t.filter)
	}
}

// answersStart tells whether a filter needs nobody's answer before the command
// runs: process 1, which hands the listener over, sleeps until execve succeeds or
// its caller has ended.
func answersStart(filter []byte) bool {
	program, err := bpf.Parse(filter)
	if err != nil {
		return false
	}
	arch := uint32(bpf.ArchAMD64)
	if runtime.GOARCH == "arm64" {
		arch = bpf.ArchARM64
	}
	for _, call := range []uint32{unix.SYS_EXECVE, unix.SYS_EXIT_GROUP} {
		if word, _ := bpf.Run(program, &bpf.Data{Number: call, Arch: arch}); word&^uint32(bpf.RetDataMask) == bpf.RetUserNotify {
			return false
		}
	}
	return true
}

// tellListener warns where the kernel gave no listener.
func (e *execution) tellListener() {
	if len(e.filter) > 0 && !e.sandbox.Listens() {
		e.warnOnce(unrecordedDenials)
		e.watched = nil // and what is watched is not known either
	}
}

// answerDenials serves the listener from here on. It is begun only when there
// is something to answer: most payloads make no call that is refused. A call that
// nobody answers would hold its process.
func (e *execution) answerDenials() {
	fd, ok := e.sandbox.TakeListener()
	if !ok {
		return
	}
	go func() {
		if err := denials.Serve(fd, e.filter, &e.denied, e.watched); err != nil {
			logLine("refused system calls are no longer answered: " + err.Error())
		}
	}()
}
