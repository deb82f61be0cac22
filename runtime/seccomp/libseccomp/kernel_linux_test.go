//go:build cgo && !noseccomp

package libseccomp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
)

// A filter cannot be taken off, so each test of the kernel runs in a child:
// this binary again, told by the environment what to do.
const (
	envRole   = "CAPSULE_SECCOMP_TEST_ROLE"   // "calls" or "exec"
	envFilter = "CAPSULE_SECCOMP_TEST_FILTER" // file with the program; empty: none
)

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "":
		os.Exit(m.Run())
	case "calls":
		childCalls()
	case "exec":
		childExec()
	}
	os.Exit(2)
}

// load puts the filter on this thread, or with TSYNC on every thread; the Go
// runtime has several.
func load(flags uintptr) {
	path := os.Getenv(envFilter)
	if path == "" {
		return
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		fatal(err)
	}
	program := unix.SockFprog{Len: uint16(len(raw) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fatal(err)
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(raw)
	if errno != 0 {
		fatal(errno)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "test child:", err)
	os.Exit(3)
}

// childExec loads the filter and becomes the program in the arguments.
func childExec() {
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		fatal(err)
	}
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CAPSULE_SECCOMP_TEST_") {
			env = append(env, e)
		}
	}
	// This thread alone: execve ends the others, which under a strict filter
	// could not even wait until then.
	runtime.LockOSThread()
	load(0)
	fatal(syscall.Exec(path, os.Args[1:], env))
}

// call is one system call to make under the filter.
type call struct {
	Name   string
	Number uintptr
	Args   [6]uintptr
	// Want is the errno; 0: the call succeeds.
	Want syscall.Errno
}

// childCalls makes the calls on stdin and prints the errno of each.
func childCalls() {
	var calls []call
	if err := json.NewDecoder(os.Stdin).Decode(&calls); err != nil {
		fatal(err)
	}
	load(unix.SECCOMP_FILTER_FLAG_TSYNC)
	for _, c := range calls {
		_, _, errno := syscall.RawSyscall6(c.Number, c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5])
		fmt.Println(int(errno))
	}
	os.Exit(0)
}

// child prepares this binary in a role with a profile's filter.
func child(t *testing.T, role, profile string, args ...string) *exec.Cmd {
	t.Helper()
	file := ""
	if profile != "" {
		file = filepath.Join(t.TempDir(), "filter")
		if err := os.WriteFile(file, bpf.Plain(compiledRaw(t, profile, runtime.GOARCH, binaryTree)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), envRole+"="+role, envFilter+"="+file)
	return cmd
}

// deniedCalls are calls that an escape needs. The arguments are harmless
// where the filter is missing: null pointers, bad descriptors and commands.
func deniedCalls() []call {
	bad := ^uintptr(0)
	const eperm, enosys, family, protocol = syscall.EPERM, syscall.ENOSYS, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT
	return []call{
		{"mount", unix.SYS_MOUNT, [6]uintptr{}, eperm},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{}, eperm},
		{"fsopen", unix.SYS_FSOPEN, [6]uintptr{}, eperm},
		{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{bad}, eperm},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{bad}, eperm},
		{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{bad}, eperm},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{bad}, eperm},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{}, eperm},
		{"chroot", unix.SYS_CHROOT, [6]uintptr{}, eperm},
		{"unshare user", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER}, eperm},
		{"setns", unix.SYS_SETNS, [6]uintptr{bad}, eperm},
		{"clone user", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWUSER | unix.CLONE_THREAD}, eperm},
		{"clone net, high bits", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWNET | unix.CLONE_THREAD | 1<<40}, eperm},
		{"clone3", unix.SYS_CLONE3, [6]uintptr{}, enosys},
		{"ptrace", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_ATTACH, bad}, eperm},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{bad}, eperm},
		{"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{bad}, eperm},
		{"kcmp", unix.SYS_KCMP, [6]uintptr{bad, bad}, eperm},
		{"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{bad}, eperm},
		{"bpf", unix.SYS_BPF, [6]uintptr{bad}, eperm},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{}, eperm},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{bad}, eperm},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{bad}, eperm},
		{"add_key", unix.SYS_ADD_KEY, [6]uintptr{}, eperm},
		{"request_key", unix.SYS_REQUEST_KEY, [6]uintptr{}, eperm},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{}, enosys},
		{"reboot", unix.SYS_REBOOT, [6]uintptr{}, eperm},
		{"swapon", unix.SYS_SWAPON, [6]uintptr{}, eperm},
		{"quotactl", unix.SYS_QUOTACTL, [6]uintptr{bad}, eperm},
		{"acct", unix.SYS_ACCT, [6]uintptr{1}, eperm},
		{"syslog", unix.SYS_SYSLOG, [6]uintptr{bad}, eperm},
		{"settimeofday", unix.SYS_SETTIMEOFDAY, [6]uintptr{1}, eperm},
		{"clock_settime", unix.SYS_CLOCK_SETTIME, [6]uintptr{0, 1}, eperm},
		{"adjtimex", unix.SYS_ADJTIMEX, [6]uintptr{}, eperm},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{bad}, eperm},
		{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [6]uintptr{bad}, eperm},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{bad, bad}, eperm},
		{"sethostname", unix.SYS_SETHOSTNAME, [6]uintptr{1, bad}, eperm},
		{"mknodat block", unix.SYS_MKNODAT, [6]uintptr{bad, 0, unix.S_IFBLK}, eperm},
		{"mknodat character", unix.SYS_MKNODAT, [6]uintptr{bad, 0, unix.S_IFCHR | 1<<20}, eperm},
		{"TIOCSTI", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCSTI}, eperm},
		{"TIOCSTI, high bits", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCSTI | 1<<32}, eperm},
		{"TIOCLINUX", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCLINUX | 1<<63}, eperm},
		{"TIOCSETD", unix.SYS_IOCTL, [6]uintptr{bad, unix.TIOCSETD}, eperm},
		{"personality MMAP_PAGE_ZERO", unix.SYS_PERSONALITY, [6]uintptr{0x100000}, eperm},
		{"AF_NETLINK", unix.SYS_SOCKET, [6]uintptr{unix.AF_NETLINK, unix.SOCK_RAW}, family},
		{"AF_PACKET", unix.SYS_SOCKET, [6]uintptr{unix.AF_PACKET, unix.SOCK_RAW}, family},
		{"AF_VSOCK", unix.SYS_SOCKET, [6]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, family},
		{"AF_ALG", unix.SYS_SOCKET, [6]uintptr{unix.AF_ALG, unix.SOCK_SEQPACKET}, family},
		{"AF_BLUETOOTH", unix.SYS_SOCKET, [6]uintptr{unix.AF_BLUETOOTH, unix.SOCK_RAW}, family},
		{"AF_ALG, high bits", unix.SYS_SOCKET, [6]uintptr{unix.AF_ALG | 1<<32, unix.SOCK_SEQPACKET}, family},
		{"SCTP", unix.SYS_SOCKET, [6]uintptr{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, protocol},
		{"a call that does not exist", 1000, [6]uintptr{}, enosys},
	}
}

// allowedCalls are neighbours of the denied ones, to show that the filter and
// not a blunter wall refuses those.
func allowedCalls() []call {
	bad := ^uintptr(0)
	return []call{
		{"AF_UNIX", unix.SYS_SOCKET, [6]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}, 0},
		{"AF_INET", unix.SYS_SOCKET, [6]uintptr{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}, 0},
		{"AF_INET6", unix.SYS_SOCKET, [6]uintptr{unix.AF_INET6, unix.SOCK_DGRAM}, 0},
		{"personality query", unix.SYS_PERSONALITY, [6]uintptr{0xffffffff}, 0},
		{"TCGETS", unix.SYS_IOCTL, [6]uintptr{bad, unix.TCGETS}, syscall.EBADF},
		{"mknodat FIFO", unix.SYS_MKNODAT, [6]uintptr{bad, 0, unix.S_IFIFO}, syscall.EFAULT},
		{"clone without namespaces", unix.SYS_CLONE, [6]uintptr{unix.CLONE_THREAD}, syscall.EINVAL},
		{"getpid", unix.SYS_GETPID, [6]uintptr{}, 0},
	}
}

// TestKernelErrnos loads the default filter and checks what the kernel answers.
func TestKernelErrnos(t *testing.T) {
	calls := append(deniedCalls(), allowedCalls()...)
	got := makeCalls(t, "default", calls)
	open := makeCalls(t, "", calls)
	differ := 0
	for i, c := range calls {
		if got[i] != c.Want {
			t.Errorf("%s: %v, want %v", c.Name, got[i], c.Want)
		}
		if open[i] != got[i] {
			differ++
		}
	}
	t.Logf("%d calls, %d of them answered differently without the filter", len(calls), differ)
	if os.Geteuid() == 0 && differ < len(deniedCalls())*2/3 {
		t.Errorf("only %d calls differ without the filter: the test does not see the wall", differ)
	}
}

// TestKernelNetwork: the network profile adds NETLINK_ROUTE and nothing else.
func TestKernelNetwork(t *testing.T) {
	calls := []call{
		{"NETLINK_ROUTE", unix.SYS_SOCKET, [6]uintptr{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, 0},
		{"NETLINK_NETFILTER", unix.SYS_SOCKET, [6]uintptr{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, syscall.EPROTONOSUPPORT},
		{"AF_PACKET", unix.SYS_SOCKET, [6]uintptr{unix.AF_PACKET, unix.SOCK_RAW}, syscall.EAFNOSUPPORT},
	}
	for i, errno := range makeCalls(t, "network", calls) {
		if errno != calls[i].Want {
			t.Errorf("%s: %v, want %v", calls[i].Name, errno, calls[i].Want)
		}
	}
}

func makeCalls(t *testing.T, profile string, calls []call) []syscall.Errno {
	t.Helper()
	input, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	cmd := child(t, "calls", profile)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	lines := strings.Fields(string(out))
	if len(lines) != len(calls) {
		t.Fatalf("%d answers for %d calls", len(lines), len(calls))
	}
	errnos := make([]syscall.Errno, len(lines))
	for i, line := range lines {
		var n int
		if _, err := fmt.Sscan(line, &n); err != nil {
			t.Fatal(err)
		}
		errnos[i] = syscall.Errno(n)
	}
	return errnos
}

// TestKernelKills: what the profiles answer with death ends with SIGSYS.
func TestKernelKills(t *testing.T) {
	calls := []call{
		{Name: "init_module", Number: unix.SYS_INIT_MODULE},
		{Name: "finit_module", Number: unix.SYS_FINIT_MODULE, Args: [6]uintptr{^uintptr(0)}},
		{Name: "delete_module", Number: unix.SYS_DELETE_MODULE},
		{Name: "kexec_load", Number: unix.SYS_KEXEC_LOAD, Args: [6]uintptr{0, 1 << 20}},
	}
	if runtime.GOARCH == "amd64" {
		calls = append(calls, call{Name: "getpid of x32", Number: unix.SYS_GETPID | 0x40000000})
	}
	for _, profile := range []string{"default", "strict"} {
		for _, c := range calls {
			input, err := json.Marshal([]call{c})
			if err != nil {
				t.Fatal(err)
			}
			cmd := child(t, "calls", profile)
			cmd.Stdin = bytes.NewReader(input)
			out, _ := cmd.Output() // The wait status says more than the error.
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGSYS {
				t.Errorf("%s: %s ended with %v and said %q", profile, c.Name, cmd.ProcessState, out)
			}
		}
	}
}
