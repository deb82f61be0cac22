package verdicts

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// act is the payload. It does not come back.
func act(what string, args []string) {
	numbers := make([]int, 3)
	for i, a := range args {
		numbers[min(i, 2)], _ = strconv.Atoi(a)
	}
	n := numbers[0]
	switch what {
	case "alloc": // MiB, touched in small steps
		touch(n, 1<<20)
		status("RssAnon")
	case "alloc-child":
		child("alloc", args...)
	case "reserve": // GiB, not touched
		_, err := unix.Mmap(-1, 0, n<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		check(err)
	case "write": // MiB to a path
		fill(args[1], n)
	case "map-file": // write beyond what the disk holds through a mapping
		f, err := os.Create("/tmp/mapped")
		check(err)
		check(f.Truncate(int64(n) << 20))
		m, err := unix.Mmap(int(f.Fd()), 0, n<<20, unix.PROT_WRITE, unix.MAP_SHARED)
		check(err)
		for i := 0; i < len(m); i += 4096 {
			m[i] = 1
		}
	case "inodes":
		for i := 0; ; i++ {
			f, err := os.Create(args[1] + "/" + strconv.Itoa(i))
			check(err)
			check(f.Close())
		}
	case "threads":
		for range n {
			go func() { runtime.LockOSThread(); unix.Pause() }()
		}
		for task("self") < n {
			time.Sleep(time.Millisecond)
		}
	case "spin": // CPU time in ms, on a number of threads
		for range max(numbers[1], 1) - 1 {
			go func() { burn(1 << 40) }()
		}
		burn(time.Duration(n) * time.Millisecond)
		var u unix.Rusage
		check(unix.Getrusage(unix.RUSAGE_SELF, &u))
		fmt.Println((u.Utime.Nano() + u.Stime.Nano()) / 1000)
	case "spin-reaped": // children one after the other
		for range 1000 {
			child("spin", "20")
		}
	case "print": // bytes of one line
		line := bytes.Repeat([]byte("x"), 64<<10)
		for left := n; left > 0; left -= len(line) {
			_, err := os.Stdout.Write(line[:min(left, len(line))])
			check(err)
		}
	case "raw":
		text, err := strconv.Unquote(`"` + args[0] + `"`)
		check(err)
		_, err = os.Stdout.WriteString(text)
		check(err)
	case "deaf":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		fmt.Println("deaf")
		for {
			unix.Pause() // a select would be a deadlock to the runtime
		}
	case "traced":
		runtime.LockOSThread()
		self, err := os.Readlink("/proc/self/exe")
		check(err)
		c := exec.Command(self, "act", "sleep")
		c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		check(c.Start())
		fmt.Println("traced")
		time.Sleep(time.Hour)
	case "uninterruptible":
		sleepInVfork()
	case "nothing":
	case "read": // a file, to its end
		f, err := os.Open(args[0])
		check(err)
		n, err := io.Copy(io.Discard, f)
		check(err)
		fmt.Println(n)
	case "sleep":
		time.Sleep(time.Hour)
	default:
		panic("no such act: " + what)
	}
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(9)
	}
}

func child(what string, args ...string) {
	c := exec.Command("/payload", append([]string{"act", what}, args...)...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	check(c.Run())
}

// touch maps MiB and writes to every page, at most step bytes at a time.
func touch(mib, step int) {
	for range mib << 20 / step {
		m, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		check(err)
		for i := 0; i < step; i += 4096 {
			m[i] = 1
		}
	}
}

// status prints a line of /proc/self/status in bytes.
func status(name string) {
	text, err := os.ReadFile("/proc/self/status")
	check(err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			check(err)
			fmt.Println(kib << 10)
		}
	}
}

func fill(path string, mib int) {
	f, err := os.Create(path)
	check(err)
	block := make([]byte, 1<<16)
	for range mib << 4 {
		_, err := f.Write(block)
		check(err)
	}
}

// task is the number of threads of a process.
func task(pid string) int {
	entries, err := os.ReadDir("/proc/" + pid + "/task")
	check(err)
	return len(entries)
}

// sleepInVfork puts the main thread, whose state is that of the process, to
// sleep in vfork(2), which ends with the child; it does not come back.
func sleepInVfork() {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		check(unix.Exec("/payload", os.Args, os.Environ())) // a new program begins on its main thread
	}
	// The child has a copy of the memory, and this one thread.
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 && errno == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_PPOLL, 0, 0, 0)
	}
	check(errno)
}

// burn uses CPU until the whole process has used up d.
func burn(d time.Duration) {
	for {
		for i := 0; i < 1<<16; i++ {
			_ = i * i
		}
		var u unix.Rusage
		check(unix.Getrusage(unix.RUSAGE_SELF, &u))
		if time.Duration(u.Utime.Nano()+u.Stime.Nano()) >= d {
			return
		}
	}
}
