package main

import (
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestFilterAsWritten: a filter answers what its configuration says, to the command and to a later
// process: its error and no other, death where it says death, and what it allows is allowed, for
// nothing of capsule's own stands behind an orchestrator's filter.
func TestFilterAsWritten(t *testing.T) {
	mount := "mount -t tmpfs none /proc/acpi || mount -t tmpfs none /mnt"
	for name, tc := range map[string]struct {
		rule    specs.LinuxSyscall
		command string
		says    string
		status  int
	}{
		"its own error": {specs.LinuxSyscall{Names: []string{"chroot"}, Action: specs.ActErrno, ErrnoRet: errno(unix.EXDEV)},
			"chroot / true", unix.EXDEV.Error(), 125},
		"EPERM when it names none": {specs.LinuxSyscall{Names: []string{"chroot"}, Action: specs.ActErrno}, "chroot / true", unix.EPERM.Error(), 125},
		"death":                    {specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActKillProcess}, "exec mkdir /out/x", "", 128 + int(unix.SIGSYS)},
		"what it allows":           {specs.LinuxSyscall{Names: []string{"mount", "mkdir"}, Action: specs.ActAllow}, mount, "", 0},
	} {
		b := newBox(t, "sh", "-c", tc.command)
		b.withFilters()
		b.mkdir("rootfs/mnt")
		admin := []string{"CAP_SYS_ADMIN"}
		b.config.Process.Capabilities = &specs.LinuxCapabilities{Bounding: admin, Effective: admin, Permitted: admin}
		// A milder default than the rules, and another error than theirs.
		// A flag for who waits for an agent's answer, of whom there is none, changes nothing.
		wait := []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
		b.config.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: wait, Syscalls: []specs.LinuxSyscall{tc.rule,
			{Names: []string{"acct"}, Action: specs.ActErrno, ErrnoRet: errno(unix.ENOSYS)}}}
		check := func(of string, args ...string) {
			t.Helper()
			_, bad, status := b.call(args...)
			if status != tc.status || !strings.Contains(strings.ToLower(bad), tc.says) {
				t.Errorf("%s, %s: status %d, %q", name, of, status, bad)
			}
		}
		check("command", "run", "one")
		b.config.Process.Args = []string{"sh", "-c", forever}
		b.must("run", "--detach", "two")
		check("later process", append([]string{"exec", "two", "sh", "-c"}, tc.command)...)
		b.must("delete", "--force", "two")
	}
}

func errno(e syscall.Errno) *uint {
	n := uint(e)
	return &n
}
