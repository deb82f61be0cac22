package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processes are the pids in /proc besides our own.
func processes(string) string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return errnoName(err)
	}
	var out []string
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			out = append(out, e.Name())
		}
	}
	return strings.Join(out, " ")
}

// initSecrets are what /proc tells of a process to those who may trace it;
// initKnobs what they may change.
var (
	initSecrets = []string{"auxv", "environ", "io", "map_files", "maps", "mem", "pagemap", "personality", "smaps", "stack", "syscall", "fd"}
	initLinks   = []string{"cwd", "exe", "root", "ns/mnt", "ns/user"}
	initKnobs   = []string{"oom_score_adj", "oom_adj", "coredump_filter", "comm", "clear_refs", "mem", "uid_map", "gid_map", "setgroups",
		"timerslack_ns", "autogroup", "sched", "attr/current", "loginuid", "timens_offsets"}
)

// settle waits until process 1 has dropped its capabilities, which protect it
// as long as it has them: what is to be seen is how it is afterwards.
func settle() {
	for end := Monotonic() + 10e9; Monotonic() < end; {
		status, err := os.ReadFile("/proc/1/status")
		if err != nil || strings.Contains(string(status), "CapPrm:\t0000000000000000\n") {
			return
		}
		_, _ = unix.Poll(nil, 1)
	}
}

// initFiles tries all of them on process 1 and gives those that let it in.
func initFiles(string) string {
	var in []string
	for _, name := range initSecrets {
		fd, err := unix.Open("/proc/1/"+name, unix.O_RDONLY, 0)
		if err != nil {
			continue
		}
		// timerslack_ns and its like check at the read, not at the open.
		_, err = unix.Read(fd, make([]byte, 1))
		if err == nil || err == unix.EISDIR || err == unix.EIO {
			in = append(in, name)
		}
		unix.Close(fd)
	}
	for _, name := range initLinks {
		if _, err := os.Readlink("/proc/1/" + name); err == nil {
			in = append(in, name)
		}
	}
	for _, name := range initKnobs {
		fd, err := unix.Open("/proc/1/"+name, unix.O_WRONLY, 0)
		if err != nil {
			continue
		}
		if _, err = unix.Write(fd, []byte("0")); err == nil {
			in = append(in, name+"!")
		}
		unix.Close(fd)
	}
	return strings.Join(in, " ")
}

// initRace reaches for process 1 from the first moment on, while it still
// becomes what it will be. It prints the time of each attempt that failed, and
// ends when it succeeds or stdin does.
func initRace(string) string {
	poll := []unix.PollFd{{Fd: 0, Events: unix.POLLRDHUP}}
	for {
		for _, name := range []string{"mem", "environ"} {
			if fd, err := unix.Open("/proc/1/"+name, unix.O_RDONLY, 0); err == nil {
				unix.Close(fd)
				return "opened " + name
			}
		}
		fmt.Println(Monotonic())
		if n, _ := unix.Poll(poll, 2); n > 0 && poll[0].Revents&unix.POLLHUP != 0 {
			return "never"
		}
	}
}

// Monotonic is CLOCK_MONOTONIC in nanoseconds: the same inside and outside, as
// long as the time namespace has no offset.
func Monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return ts.Nano()
}

// exes are the programs that links in /proc lead to.
func exes(string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/*/exe")
	found := map[string]bool{}
	for _, l := range append(links, tasks...) {
		if target, err := os.Readlink(l); err == nil {
			found[target] = true
		}
	}
	var out []string
	for target := range found {
		out = append(out, target)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// loopback gives the interfaces, and whether lo is up.
func loopback(string) string {
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return errnoName(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return errnoName(err)
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq("lo")
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifreq)
	}
	return fmt.Sprint(strings.Join(names, " "), " up=", err == nil && ifreq.Uint16()&unix.IFF_UP != 0)
}

// tcp connects to a port of 127.0.0.1.
func tcp(port string) string {
	n, err := strconv.Atoi(port)
	if err != nil {
		return err.Error()
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return errnoName(err)
	}
	defer unix.Close(fd)
	return errnoName(unix.Connect(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}))
}

// abstract connects to an abstract socket; "!name" listens on it.
func abstract(name string) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return errnoName(err)
	}
	if mine, listen := strings.CutPrefix(name, "!"); listen {
		if err = unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + mine}); err == nil {
			err = unix.Listen(fd, 1)
		}
		return errnoName(err) // stays open for as long as we live
	}
	defer unix.Close(fd)
	return errnoName(unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + name}))
}

// sysv looks for a shared memory segment by its key; "!key" makes it.
func sysv(key string) string {
	number, mine := strings.CutPrefix(key, "!")
	n, err := strconv.Atoi(number)
	if err != nil {
		return err.Error()
	}
	flags := 0
	if mine {
		flags = unix.IPC_CREAT | 0o666
	}
	_, err = unix.SysvShmGet(n, 4096, flags)
	return errnoName(err)
}

// mqueue opens a message queue; "!name" makes it.
func mqueue(name string) string {
	name, mine := strings.CutPrefix(name, "!")
	flags := unix.O_RDONLY
	if mine {
		flags |= unix.O_CREAT
	}
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err.Error()
	}
	fd, _, errno := syscall.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(p)), uintptr(flags), 0o666, 0, 0, 0)
	if errno != 0 {
		return errnoName(errno)
	}
	if !mine {
		unix.Close(int(fd))
	}
	return "ok"
}

func hostname(string) string {
	name, err := os.Hostname()
	if err != nil {
		return errnoName(err)
	}
	return name
}

// wait tells the test that all is set up and waits for stdin to end.
func wait(string) string {
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return "over"
}
