package main

import (
	"flag"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/doctor"
)

// restrictedMarker makes TestRestricted the program that it is for.
const restrictedMarker = "CAPSULECTL_TEST_RESTRICTED"

// restricted is a host that lets users make user namespaces in which they have no
// rights, as AppArmor does on Ubuntu 23.10 and later. The kernel here has no
// such sysctl, so a directory with one lies over the real one, and a filter
// refuses what AppArmor would.
func restricted() kind {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return kind{name: "user namespaces restricted by AppArmor", mount: true, state: doctor.Blocked,
		setup: "mount -t tmpfs tmpfs /proc/sys/kernel; echo 1 >/proc/sys/kernel/apparmor_restrict_unprivileged_userns; chown 65534 \"$CAPSULE_STATE\"\n" +
			"set -- env " + restrictedMarker + "=1 '" + self + "' '-test.run=^TestRestricted$' -- \"$@\"",
		causes: map[string]string{"rootfs": "apparmor_userns"}}
}

// TestRestricted becomes an unprivileged user who may not mount anything in any
// namespace, and runs the command that follows. Called otherwise it has nothing to do.
func TestRestricted(t *testing.T) {
	if os.Getenv(restrictedMarker) == "" {
		return
	}
	runtime.LockOSThread()
	refused := []uint32{unix.SYS_MOUNT, unix.SYS_FSOPEN, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_PIVOT_ROOT}
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}
	for i, nr := range refused {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(len(refused) - i)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)})
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	for _, step := range []func() error{
		func() error { return unix.Setgroups(nil) },
		func() error { return unix.Setresgid(65534, 65534, 65534) },
		func() error { return unix.Setresuid(65534, 65534, 65534) },
		func() error { return unix.Chdir("/") },
		func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) },
		func() error {
			return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0) //nolint:gosec // the kernel reads it during the call
		},
		func() error { return unix.Exec(flag.Arg(0), flag.Args(), os.Environ()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}
