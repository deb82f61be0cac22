package walls

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/hack/walls/attack"
)

// outcome is what a system call gives: behind all walls, without the filter,
// and, for user 0, without the filter and with the capabilities that the user
// namespace gives. " or " separates what different kernels say; "" is not
// asserted, because configurations of the kernel decide it.
type outcome struct{ full, unfiltered, capable string }

// outcomes has every attack of attack.Calls.
var outcomes = map[string]outcome{
	// Mounts and roots: the filter first, then the capabilities.
	"mount":         {"EPERM", "EPERM", "ok"},
	"bind":          {"EPERM", "EPERM", "ok"},
	"remount-rw":    {"EPERM", "EPERM", "ok"},
	"umount":        {"EPERM", "EPERM", "ok"},
	"pivot_root":    {"EPERM", "EPERM", "ok"},
	"chroot":        {"EPERM", "EPERM", "ok"},
	"open_tree":     {"EPERM", "EPERM", "ok"},
	"fsopen":        {"EPERM", "EPERM", "ok"},
	"fspick":        {"EPERM", "EPERM", "ok"},
	"fsconfig":      {"EPERM", "EINVAL", ""},
	"fsmount":       {"EPERM", "EPERM", "EBADF"},
	"move_mount":    {"EPERM", "EPERM", "ELOOP or EINVAL"},
	"mount_setattr": {"EPERM", "EPERM", "ok"},
	// Namespaces: a user namespace needs no capability, so the filter alone
	// stands before it.
	"unshare-user":   {"EPERM", "ok", ""},
	"unshare-mount":  {"EPERM", "EPERM", "ok"},
	"unshare-cgroup": {"EPERM", "EPERM", "ok"},
	"unshare-uts":    {"EPERM", "EPERM", "ok"},
	"unshare-ipc":    {"EPERM", "EPERM", "ok"},
	"unshare-pid":    {"EPERM", "EPERM", "ok"},
	"unshare-net":    {"EPERM", "EPERM", "ok"},
	"unshare-time":   {"EPERM", "EPERM or EINVAL", "ok or EINVAL"},
	"clone-user":     {"EPERM", "ok", "ok"},
	"clone-mount":    {"EPERM", "EPERM", "ok"},
	"clone-cgroup":   {"EPERM", "EPERM", "ok"},
	"clone-uts":      {"EPERM", "EPERM", "ok"},
	"clone-ipc":      {"EPERM", "EPERM", "ok"},
	"clone-pid":      {"EPERM", "EPERM", "ok"},
	"clone-net":      {"EPERM", "EPERM", "ok"},
	"clone3-user":    {"ENOSYS", "ok", "ok"},
	"setns":          {"EPERM", "EPERM", "ok"},
	"nested":         {"step 0 EPERM", "ok", ""},
	// Devices: the filter, the capabilities, and at last the user namespace.
	"mknod": {"EPERM", "EPERM", "EPERM"},
	// What reaches other processes.
	"ptrace-me":    {"EPERM", "ok", ""},
	"kcmp":         {"EPERM", "EPERM or ENOSYS", ""},
	"pidfd-init":   {"step 1 EPERM or EPERM", "EPERM", ""},
	"ptrace-init":  {"EPERM", "EPERM", ""},
	"readv-init":   {"EPERM", "EPERM", ""},
	"writev-init":  {"EPERM", "EPERM", ""},
	"term-init":    {"EPERM", "EPERM", ""},
	"stop-init":    {"EPERM", "EPERM", ""},
	"kill-init":    {"EPERM", "EPERM", ""},
	"prlimit-init": {"EPERM", "EPERM", ""},
	"nice-init":    {"EPERM", "EPERM", ""},
	// Kernel code with a record.
	"keyctl":            {"EPERM", "ok or ENOKEY or ENOSYS", ""},
	"add_key":           {"EPERM", "ok or ENOSYS", ""},
	"request_key":       {"EPERM", "ENOKEY or ENOSYS", ""},
	"bpf":               {"EPERM", "", ""},
	"perf_event_open":   {"EPERM", "", ""},
	"io_uring_setup":    {"ENOSYS", "", ""},
	"userfaultfd":       {"EPERM", "", ""},
	"modify_ldt":        {"EPERM", "", ""},
	"name_to_handle_at": {"EPERM", "EOVERFLOW or ENOTSUP", ""},
	"open_by_handle_at": {"EPERM", "EINVAL or EPERM", ""},
	"fanotify_init":     {"EPERM", "", ""},
	"personality":       {"EPERM", "ok", ""},
	// Administration of the host.
	"syslog":        {"EPERM", "EPERM", ""},
	"reboot":        {"EPERM", "EPERM", "EINVAL"},
	"swapon":        {"EPERM", "EPERM or ENOSYS", "EPERM or ENOSYS"},
	"acct":          {"EPERM", "EPERM or ENOSYS", "EPERM or ENOSYS"},
	"quotactl":      {"EPERM", "", ""},
	"settimeofday":  {"EPERM", "EPERM", "EPERM"},
	"sethostname":   {"EPERM", "EPERM", "ok"},
	"init_module":   {"SIGSYS", "EPERM or ENOSYS", "EPERM or ENOSYS"},
	"finit_module":  {"SIGSYS", "EPERM or ENOSYS", "EPERM or ENOSYS"},
	"delete_module": {"SIGSYS", "EPERM or ENOSYS", "EPERM or ENOSYS"},
	"kexec_load":    {"SIGSYS", "EPERM or ENOSYS", "EPERM or ENOSYS"},
	// Sockets.
	"netlink": {"EAFNOSUPPORT", "ok", "ok"},
	"packet":  {"EAFNOSUPPORT", "EPERM", "ok"},
	"vsock":   {"EAFNOSUPPORT", "", ""},
	"alg":     {"EAFNOSUPPORT", "", ""},
	"raw-ip":  {"EPERM", "EPERM", "ok"},
	"sctp":    {"EPROTONOSUPPORT", "", ""},
	// Terminals. EIO: this kernel has no TIOCSTI (dev.tty.legacy_tiocsti).
	"tiocsti":      {"EPERM", "ok or EIO", ""},
	"tiocsti-high": {"EPERM", "ok or EIO", ""},
	"tioclinux":    {"EPERM", "ENOTTY", ""},
	"tiocsetd":     {"EPERM", "EINVAL or EPERM or EIO", ""},
	// Identity.
	"setresuid":   {"EPERM", "EPERM", "ok"},
	"setresgid":   {"EPERM", "EPERM", "ok"},
	"setgroups":   {"EPERM", "EPERM", "ok"},
	"become-init": {"step 0 EPERM", "step 0 EPERM", "ok"},
	"capset":      {"EPERM", "EPERM", "ok"},
	// The one descriptor that comes from the host as it is: /dev/null.
	"stdin-chmod":  {"EPERM", "EPERM", "EPERM"},
	"stdin-chown":  {"EPERM", "EPERM", "EPERM"},
	"stdin-utimes": {"EPERM", "EPERM", "EPERM"},
}

// rootlessOutcomes are those that differ with a single mapped id, which the
// command shares with process 1: without Landlock signals are then permitted, but the kernel
// does not deliver them to process 1 of a pid namespace from inside it, and
// limits and priorities of process 1 may be lowered to the command's own harm.
var rootlessOutcomes = map[string]outcome{
	"setresuid":    {"EINVAL", "EINVAL", "ok"},
	"setresgid":    {"EINVAL", "EINVAL", "ok"},
	"become-init":  {"step 0 EINVAL", "step 0 EINVAL", "step 0 EINVAL"},
	"setgroups":    {"EPERM", "EPERM", "EPERM"},
	"term-init":    {"ok", "ok", ""},
	"stop-init":    {"ok", "ok", ""},
	"kill-init":    {"ok", "ok", ""},
	"prlimit-init": {"ok", "ok", ""},
	"nice-init":    {"ok", "ok", ""},
	"stdin-chown":  {"EPERM or EINVAL", "EPERM or EINVAL", "EPERM or EINVAL"},
}

func outcomeOf(name string) outcome {
	if o, ok := rootlessOutcomes[name]; ok && rootless() {
		if scoped() && slices.Contains([]string{"term-init", "stop-init", "kill-init"}, name) {
			o.full = "EPERM" // process 1 is not in the command's domain
		}
		return o
	}
	return outcomes[name]
}

// TestSystemCalls makes every call behind all walls and without the filter.
func TestSystemCalls(t *testing.T) {
	full, unfiltered := map[string]string{}, map[string]string{}
	for name := range attack.Calls {
		o := outcomeOf(name)
		if o.full == "" {
			t.Errorf("%s: nothing is expected of it", name)
		}
		full[name] = o.full
		if o.unfiltered != "" {
			unfiltered[name] = o.unfiltered
		}
	}
	if runtime.GOARCH != "amd64" {
		full["modify_ldt"] = "ENOSYS"
	}
	box{}.expect(t, "behind all walls", full)
	box{}.with(noFilter{}, withoutLandlock).expect(t, "without the filter", unfiltered)
}

// TestCapabilitiesHoldWithoutTheFilter: what the filter forbids and the
// capabilities forbid too works when neither is there, so each of the two
// tests above would notice a wall that is missing. Each attack has a sandbox
// of its own, because it changes it.
func TestCapabilitiesHoldWithoutTheFilter(t *testing.T) {
	open := box{}.with(noFilter{}, withoutLandlock, asUser("0"), withCapabilities)
	names := make([]string, 0, len(outcomes))
	for name := range outcomes {
		if outcomeOf(name).capable != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	passed := 0
	for _, name := range names {
		want := outcomeOf(name).capable
		if got := open.attack(t, name)[name]; !slices.Contains(strings.Split(want, " or "), got) {
			t.Errorf("%s gives %q, want %q", name, got, want)
		} else if got == "ok" {
			passed++
		}
	}
	if passed < 25 {
		t.Errorf("only %d attacks work with capabilities and without a filter", passed)
	}
}
