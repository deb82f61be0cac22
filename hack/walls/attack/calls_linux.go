package attack

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func asErrno(err error) (syscall.Errno, bool) {
	var errno syscall.Errno
	ok := errors.As(err, &errno)
	return errno, ok
}

const cwd = unix.AT_FDCWD

func words(v ...uint64) []byte {
	var b []byte
	for _, n := range v {
		b = binary.NativeEndian.AppendUint64(b, n)
	}
	return b
}

// cloning makes a child with flags. clone has no flag for a time namespace.
func cloning(flags int) []call {
	return []call{{unix.SYS_CLONE, []any{flags | int(unix.SIGCHLD), 0, 0, 0, 0}}}
}

func unsharing(flags int) []call { return []call{{unix.SYS_UNSHARE, []any{flags}}} }

func socket(family, kind, protocol int) []call {
	return []call{{unix.SYS_SOCKET, []any{family, kind, protocol}}}
}

// terminal makes a new pseudo terminal the controlling one of a new session
// and then does an ioctl on it.
func terminal(request uint64) []call {
	return []call{
		{unix.SYS_SETSID, nil},
		{unix.SYS_OPENAT, []any{cwd, "/dev/ptmx", unix.O_RDWR | unix.O_NOCTTY, 0}},
		{unix.SYS_IOCTL, []any{result(1), unix.TIOCSPTLCK, make([]byte, 4)}},
		{unix.SYS_OPENAT, []any{cwd, "/dev/pts/0", unix.O_RDWR, 0}},
		{unix.SYS_IOCTL, []any{result(3), request, []byte{'x'}}},
	}
}

// Calls are the attacks that are system calls and nothing else.
var Calls = map[string][]call{
	"mount":          {{unix.SYS_MOUNT, []any{"none", "/tmp", "tmpfs", 0, 0}}},
	"bind":           {{unix.SYS_MOUNT, []any{"/usr", "/tmp", 0, unix.MS_BIND, 0}}},
	"remount-rw":     {{unix.SYS_MOUNT, []any{0, "/", 0, unix.MS_REMOUNT | unix.MS_BIND, 0}}},
	"umount":         {{unix.SYS_UMOUNT2, []any{"/tmp", unix.MNT_DETACH}}},
	"pivot_root":     {{unix.SYS_PIVOT_ROOT, []any{"/tmp", "/tmp"}}},
	"chroot":         {{unix.SYS_CHROOT, []any{"/tmp"}}},
	"open_tree":      {{unix.SYS_OPEN_TREE, []any{cwd, "/tmp", unix.OPEN_TREE_CLONE}}},
	"fsopen":         {{unix.SYS_FSOPEN, []any{"tmpfs", 0}}},
	"fspick":         {{unix.SYS_FSPICK, []any{cwd, "/tmp", 0}}},
	"fsconfig":       {{unix.SYS_FSCONFIG, []any{-1, 6, 0, 0, 0}}},
	"fsmount":        {{unix.SYS_FSMOUNT, []any{-1, 0, 0}}},
	"move_mount":     {{unix.SYS_MOVE_MOUNT, []any{cwd, "/tmp", cwd, "/tmp", 0}}},
	"mount_setattr":  {{unix.SYS_MOUNT_SETATTR, []any{cwd, "/tmp", 0, words(unix.MOUNT_ATTR_RDONLY, 0, 0, 0), 32}}},
	"unshare-user":   unsharing(unix.CLONE_NEWUSER),
	"unshare-mount":  unsharing(unix.CLONE_NEWNS),
	"unshare-cgroup": unsharing(unix.CLONE_NEWCGROUP),
	"unshare-uts":    unsharing(unix.CLONE_NEWUTS),
	"unshare-ipc":    unsharing(unix.CLONE_NEWIPC),
	"unshare-pid":    unsharing(unix.CLONE_NEWPID),
	"unshare-net":    unsharing(unix.CLONE_NEWNET),
	"unshare-time":   unsharing(unix.CLONE_NEWTIME),
	"clone-user":     cloning(unix.CLONE_NEWUSER),
	"clone-mount":    cloning(unix.CLONE_NEWNS),
	"clone-cgroup":   cloning(unix.CLONE_NEWCGROUP),
	"clone-uts":      cloning(unix.CLONE_NEWUTS),
	"clone-ipc":      cloning(unix.CLONE_NEWIPC),
	"clone-pid":      cloning(unix.CLONE_NEWPID),
	"clone-net":      cloning(unix.CLONE_NEWNET),
	"clone3-user":    {{unix.SYS_CLONE3, []any{words(unix.CLONE_NEWUSER, 0, 0, 0, uint64(unix.SIGCHLD), 0, 0, 0), 64}}},
	"setns": {{unix.SYS_OPENAT, []any{cwd, "/proc/self/ns/uts", unix.O_RDONLY, 0}},
		{unix.SYS_SETNS, []any{result(0), 0}}},
	// A nested user namespace gives every capability over new namespaces: this
	// is the door to the kernel that most escapes went through.
	"nested": {{unix.SYS_UNSHARE, []any{unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET}},
		{unix.SYS_MOUNT, []any{"none", "/tmp", "tmpfs", 0, 0}}},
	"mknod":             {{unix.SYS_MKNODAT, []any{cwd, "/tmp/device", unix.S_IFCHR | 0o666, 0x103}}},
	"ptrace-me":         {{unix.SYS_PTRACE, []any{0, 0, 0, 0}}},
	"keyctl":            {{unix.SYS_KEYCTL, []any{0, -3, 0}}}, // KEYCTL_GET_KEYRING_ID of the session
	"add_key":           {{unix.SYS_ADD_KEY, []any{"user", "capsule-walls", []byte("x"), 1, -2}}},
	"request_key":       {{unix.SYS_REQUEST_KEY, []any{"user", "capsule-walls-none", 0, 0}}},
	"bpf":               {{unix.SYS_BPF, []any{0, words(uint64(2)|4<<32, uint64(4)|1<<32, 0, 0), 32}}}, // BPF_MAP_CREATE: an array of one
	"perf_event_open":   {{unix.SYS_PERF_EVENT_OPEN, []any{perfAttr(), 0, -1, -1, 0}}},
	"io_uring_setup":    {{unix.SYS_IO_URING_SETUP, []any{1, make([]byte, 120)}}},
	"userfaultfd":       {{unix.SYS_USERFAULTFD, []any{0}}},
	"modify_ldt":        {{sysModifyLDT, []any{0, make([]byte, 16), 16}}},
	"kcmp":              {{unix.SYS_KCMP, []any{1, 1, 0, 0, 0}}},
	"name_to_handle_at": {{unix.SYS_NAME_TO_HANDLE_AT, []any{cwd, "/usr", make([]byte, 256), make([]byte, 8), 0}}},
	"open_by_handle_at": {{unix.SYS_OPEN_BY_HANDLE_AT, []any{cwd, make([]byte, 256), 0}}},
	"fanotify_init":     {{unix.SYS_FANOTIFY_INIT, []any{0, 0}}},
	"syslog":            {{unix.SYS_SYSLOG, []any{10, 0, 0}}},
	"reboot":            {{unix.SYS_REBOOT, []any{0, 0, 0, 0}}}, // wrong magic: never does anything
	"swapon":            {{unix.SYS_SWAPON, []any{"/tmp/none", 0}}},
	"acct":              {{unix.SYS_ACCT, []any{"/tmp/none"}}},
	"quotactl":          {{unix.SYS_QUOTACTL, []any{0, "/tmp/none", 0, 0}}},
	"settimeofday":      {{unix.SYS_SETTIMEOFDAY, []any{0, make([]byte, 8)}}},
	"sethostname":       {{unix.SYS_SETHOSTNAME, []any{"owned", 5}}},
	"init_module":       {{unix.SYS_INIT_MODULE, []any{make([]byte, 8), 0, ""}}},
	"finit_module":      {{unix.SYS_FINIT_MODULE, []any{-1, "", 0}}},
	"delete_module":     {{unix.SYS_DELETE_MODULE, []any{"capsule_walls_none", 0}}},
	"kexec_load":        {{unix.SYS_KEXEC_LOAD, []any{0, 0, 0, 0xffff}}},
	"personality":       {{unix.SYS_PERSONALITY, []any{0x0400000}}}, // READ_IMPLIES_EXEC
	"netlink":           socket(unix.AF_NETLINK, unix.SOCK_RAW, 0),
	"packet":            socket(unix.AF_PACKET, unix.SOCK_RAW, 0),
	"vsock":             socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
	"alg":               socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
	"raw-ip":            socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
	"sctp":              socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP),
	"tiocsti":           terminal(unix.TIOCSTI),
	"tiocsti-high":      terminal(0xdeadbeef<<32 | unix.TIOCSTI),
	"tioclinux":         terminal(unix.TIOCLINUX),
	"tiocsetd":          terminal(unix.TIOCSETD),
	"setresuid":         {{unix.SYS_SETRESUID, []any{0, 0, 0}}},
	"setresgid":         {{unix.SYS_SETRESGID, []any{0, 0, 0}}},
	"setgroups":         {{unix.SYS_SETGROUPS, []any{1, make([]byte, 4)}}},
	"become-init": {{unix.SYS_SETRESGID, []any{65535, 65535, 65535}},
		{unix.SYS_SETRESUID, []any{65535, 65535, 65535}}},
	"capset": {{unix.SYS_CAPSET, []any{words(0x20080522), words(1<<21|1<<53, 1<<21, 0)}}}, // SYS_ADMIN
	"pidfd-init": {{unix.SYS_PIDFD_OPEN, []any{1, 0}},
		{unix.SYS_PIDFD_GETFD, []any{result(0), 0, 0}}},
	"ptrace-init":  {{unix.SYS_PTRACE, []any{0x4206, 1, 0, 0}}}, // PTRACE_SEIZE
	"readv-init":   {{unix.SYS_PROCESS_VM_READV, []any{1, words(0x10000, 1), 1, words(0x10000, 1), 1, 0}}},
	"writev-init":  {{unix.SYS_PROCESS_VM_WRITEV, []any{1, words(0x10000, 1), 1, words(0x10000, 1), 1, 0}}},
	"term-init":    {{unix.SYS_KILL, []any{1, int(unix.SIGTERM)}}},
	"stop-init":    {{unix.SYS_KILL, []any{1, int(unix.SIGSTOP)}}},
	"kill-init":    {{unix.SYS_KILL, []any{1, int(unix.SIGKILL)}}},
	"prlimit-init": {{unix.SYS_PRLIMIT64, []any{1, unix.RLIMIT_NOFILE, words(64, 64), 0}}},
	"nice-init":    {{unix.SYS_SETPRIORITY, []any{unix.PRIO_PROCESS, 1, 19}}},
	"stdin-chmod":  {{unix.SYS_FCHMOD, []any{0, 0o777}}},
	"stdin-chown":  {{unix.SYS_FCHOWN, []any{0, 1000, 1000}}},
	"stdin-utimes": {{unix.SYS_UTIMENSAT, []any{0, 0, words(1, 0, 1, 0), 0}}},
}

// perfAttr is a struct perf_event_attr that counts page faults of user code:
// the least that can be asked for.
func perfAttr() []byte {
	return words(1|64<<32, 2, 0, 0, 0, 1<<5|1<<6, 0, 0)
}
