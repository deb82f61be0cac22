package attack

import (
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// more are the attacks that hack/escape added.
var more = map[string]func(string) string{
	"statfs": statfs, "above": above, "owner": owner, "spawn": spawn, "eat": eat, "fill": fill, "key": key, "links": links,
	"tty-of": ttyOf, "linger": linger, "sleep": sleep, "flood": flood, "exit": exit, "chdir": chdir, "identity": identity, "swap": swap,
	"push": push, "self": self, "landlocked": landlocked, "connect": connect, "truncate": truncate, "signal": signal, "kill-all": killAll, "sweep": sweep, "compatible": compatible,
}

// statfs are the flags of the mount at path.
func statfs(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return errnoName(err)
	}
	var on []string
	for _, f := range []struct {
		bit  int64
		name string
	}{{unix.ST_RDONLY, "ro"}, {unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"}} {
		if int64(st.Flags)&f.bit != 0 {
			on = append(on, f.name)
		}
	}
	return strings.Join(on, ",")
}

// above looks over the edge of the root: after pivot_root an old root that is
// not detached lies right on top of the new one.
func above(string) string {
	var root, over unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return errnoName(err)
	}
	if err := unix.Stat("/..", &over); err != nil {
		return errnoName(err)
	}
	if root.Ino != over.Ino || root.Dev != over.Dev {
		return "outside"
	}
	return "nothing"
}

// owner is who owns a file, as the namespace shows it.
func owner(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return errnoName(err)
	}
	return fmt.Sprint(st.Uid, ":", st.Gid)
}

// spawn starts at most 150 processes that do nothing and ends them; it gives
// how many there were, or "all".
func spawn(text string) string {
	n, err := strconv.Atoi(text)
	if err != nil || n > 150 {
		return "not a number up to 150"
	}
	var pids []int
	for range n {
		pid := idle()
		if pid <= 0 {
			break
		}
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	if len(pids) == n {
		return "all"
	}
	return "some"
}

// idle forks a process that waits for a signal. In it only this thread exists,
// so it calls nothing but the kernel. It gives -1 when there is no more.
//
//go:noinline
//go:norace
func idle() int {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	for pid == 0 {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(pid)
}

// eat touches so many MiB of memory, at most 600.
func eat(text string) string {
	n, err := strconv.Atoi(text)
	if err != nil || n > 600 {
		return "not a number up to 600"
	}
	for range n {
		page, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return errnoName(err)
		}
		for i := 0; i < len(page); i += 4096 {
			page[i] = 1
		}
	}
	return "eaten"
}

// fill writes a file at PATH until an error comes, at most 128 MiB.
func fill(path string) string {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return errnoName(err)
	}
	defer unix.Close(fd)
	block := make([]byte, 1<<20)
	for range 128 {
		if n, err := unix.Write(fd, block); err != nil {
			return errnoName(err)
		} else if n < len(block) {
			continue // the next one says why
		}
	}
	return "written"
}

// key looks for a key of the host's in the session keyring.
func key(description string) string {
	// A session keyring is the thread's: the main one has what was inherited.
	runtime.LockOSThread()
	_, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", description, 0)
	return errnoName(err)
}

// links tries every link of /proc that stands for an open file and belongs to
// another process, and gives what opened or what could be read of it.
func links(string) string {
	settle()
	var in []string
	for _, pattern := range []string{"exe", "root", "cwd", "fd/*", "map_files/*", "task/*/exe", "task/*/root", "task/*/cwd", "task/*/fd/*"} {
		found, _ := filepath.Glob("/proc/[0-9]*/" + pattern)
		for _, path := range append(found, "/proc/1/exe", "/proc/1/root", "/proc/1/cwd", "/proc/1/fd/0", "/proc/1/fd/1") {
			if strings.HasPrefix(path, "/proc/"+itoa(os.Getpid())+"/") {
				continue
			}
			for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_PATH, unix.O_RDWR} {
				if fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
					unix.Close(fd)
					in = append(in, path)
				}
			}
		}
	}
	slices.Sort(in)
	return strings.Join(slices.Compact(in), " ")
}

func itoa(n int) string { return strconv.Itoa(n) }

// self are the files mapped into this process and the sources of its mounts
// that have a part of the given name.
func self(part string) string {
	var found []string
	for _, file := range []string{"maps", "mountinfo", "environ", "status", "stat", "auxv"} {
		text, err := os.ReadFile("/proc/self/" + file)
		if err != nil {
			return errnoName(err)
		}
		if strings.Contains(string(text), part) {
			found = append(found, file)
		}
	}
	return strings.Join(found, " ")
}

// ttyOf tells whether a descriptor is a terminal.
func ttyOf(text string) string {
	fd, err := strconv.Atoi(text)
	if err != nil {
		return err.Error()
	}
	_, err = unix.IoctlGetTermios(fd, unix.TCGETS)
	return errnoName(err)
}

// push pushes a key into the terminal at a descriptor, and, with high bits set
// in the request, once more.
func push(text string) string {
	fd, err := strconv.Atoi(text)
	if err != nil {
		return err.Error()
	}
	char := []byte{'x'}
	var said []string
	for _, request := range []uintptr{unix.TIOCSTI, 0xdeadbeef<<32 | unix.TIOCSTI, unix.TIOCLINUX, 1<<32 | unix.TIOCLINUX} {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&char[0])))
		if errno == 0 {
			said = append(said, "ok")
		} else {
			said = append(said, errnoName(errno))
		}
	}
	return strings.Join(said, " ")
}

// linger leaves a grandchild in a session of its own that ignores SIGTERM and
// lives for so many seconds, at most 60.
func linger(seconds string) string {
	if n, err := strconv.Atoi(seconds); err != nil || n > 60 {
		return "not a number up to 60"
	}
	cmd := exec.Command("/bin/sh", "-c", `trap "" TERM HUP INT; (trap "" TERM; sleep `+seconds+`) & sleep `+seconds)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	return "started"
}

// sleep is idle for so many seconds, at most 60, and deaf to SIGTERM.
func sleep(seconds string) string {
	n, err := strconv.Atoi(seconds)
	if err != nil || n > 60 {
		return "not a number up to 60"
	}
	ossignal.Ignore(unix.SIGTERM, unix.SIGHUP, unix.SIGINT)
	time.Sleep(time.Duration(n) * time.Second)
	return "slept"
}

// flood prints so many KiB.
func flood(text string) string {
	n, err := strconv.Atoi(text)
	if err != nil {
		return err.Error()
	}
	block := []byte(strings.Repeat("x", 1023) + "\n")
	for range n {
		if _, err := os.Stdout.Write(block); err != nil {
			return err.Error()
		}
	}
	return "flooded"
}

// exit ends the attacker at once with a code.
func exit(text string) string {
	code, err := strconv.Atoi(text)
	if err != nil {
		return err.Error()
	}
	os.Exit(code)
	return ""
}

func chdir(path string) string { return errnoName(unix.Chdir(path)) }

// identity are user and group ids of a process, as /proc shows them.
func identity(pid string) string {
	settle()
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return errnoName(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "Uid:") || strings.HasPrefix(line, "Gid:") {
			out = append(out, strings.Join(strings.Fields(line)[1:], " "))
		}
	}
	return strings.Join(out, " ")
}

// swap exchanges DIR/a and DIR/b until stdin ends, and says how often.
func swap(dir string) string {
	poll := []unix.PollFd{{Fd: 0, Events: unix.POLLRDHUP}}
	fmt.Println("ready")
	for n := 0; ; n++ {
		if err := unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE); err != nil {
			return errnoName(err)
		}
		if n%64 == 0 {
			if got, _ := unix.Poll(poll, 0); got > 0 {
				return "over"
			}
		}
	}
}

// landlocked is what the kernel says to another ruleset: its version, or why not.
func landlocked(string) string {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
	if errno != 0 {
		return errnoName(errno)
	}
	return strconv.Itoa(int(version))
}

// connect tries every socket that the process can see: those of the file
// system below the given directory, and the abstract ones that /proc lists.
func connect(root string) string {
	var reached []string
	try := func(name string) {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				continue
			}
			if unix.Connect(fd, &unix.SockaddrUnix{Name: name}) == nil {
				reached = append(reached, name)
			}
			unix.Close(fd)
		}
	}
	text, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 8 && fields[0] != "Num" {
			try(fields[7])
		}
	}
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == "/proc" || path == "/usr" {
			return filepath.SkipDir
		}
		if d.Type()&os.ModeSocket != 0 {
			try(path)
		}
		return nil
	})
	slices.Sort(reached)
	return strings.Join(slices.Compact(reached), " ")
}

// truncate empties a file.
func truncate(path string) string { return errnoName(unix.Truncate(path, 0)) }

// signal asks whether a process may be signalled, without a signal.
func signal(text string) string {
	pid, err := strconv.Atoi(text)
	if err != nil {
		return err.Error()
	}
	settle()
	return errnoName(unix.Kill(pid, 0))
}

// killAll signals nothing to everybody, as kill(-1) would: it is EPERM when
// there is nobody whom it may reach and ESRCH when there is nobody.
func killAll(string) string { return errnoName(unix.Kill(-1, 0)) }
