package shim

import (
	"context"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/shim/denials"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// auditing makes the filter of the profile audit: that of default, with a notice
// of each call that it allows. What default refuses is refused as ever. The calls
// that start and end the command's process are not watched, since nobody could
// answer while process 1 waits for its execve (see answersStart); they are known.
func (t *translation) auditing(cache seccomp.Cache) error {
	refuse := func(why, hint string) error {
		return fault.New(fault.Unsupported, "choose seccomp profile", why).WithField("/isolation/seccomp").WithHint(hint)
	}
	if t.noInit {
		return refuse("audit needs an init, which hands the notices over", "Leave isolation.init at true.")
	}
	if denials.Flags() == 0 {
		return refuse("this kernel tells nobody of system calls (Linux 5.5)", "Record on another host.")
	}
	var err error
	if t.object, err = seccomp.OCI(spec.SeccompDefault); err != nil {
		return err
	}
	program, err := cache.Named(context.Background(), spec.SeccompDefault)
	if err != nil {
		return fault.From(err, fault.Seccomp).WithField("/isolation/seccomp")
	}
	arch := uint32(bpf.ArchAMD64)
	if runtime.GOARCH == "arm64" {
		arch = bpf.ArchARM64
	}
	t.filter = bpf.Audit(program, arch, unix.SYS_EXECVE, unix.SYS_EXIT_GROUP)
	t.watched, err = denials.NewObserved("execve", "exit_group")
	return err
}
