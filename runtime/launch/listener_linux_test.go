package launch

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// filterOn answers one system call with an action and allows all others. It
// looks at no architecture: the programs of these tests use the native one.
func filterOn(nr uintptr, action uint32) []byte {
	const load, jeq, ret = 0x20, 0x15, 0x06
	var code []byte
	for _, in := range []unix.SockFilter{
		{Code: load}, {Code: jeq, K: uint32(nr), Jf: 1}, {Code: ret, K: action}, {Code: ret, K: 0x7fff0000},
	} {
		code = binary.NativeEndian.AppendUint16(code, in.Code)
		code = append(code, in.Jt, in.Jf)
		code = binary.NativeEndian.AppendUint32(code, in.K)
	}
	return code
}

const (
	retErrno  = 0x00050000
	retNotify = 0x7fc00000
)

// unshares runs unshare(1), whose call nothing inside permits, under a
// filter with a listener, and calls serve with the listener, if there is one.
// It returns what the command printed and its exit status.
func unshares(t *testing.T, fallback []byte, serve func(listener int)) (string, int) {
	t.Helper()
	s := baseSpec("sh", "-c", "LC_ALL=C unshare -u true 2>&1; echo $?; ls /proc/self/fd | wc -l")
	s.Linux.Seccomp = &specs.LinuxSeccomp{}
	f := facts(t, s)
	f.Filter, f.Listener, f.Fallback = filterOn(unix.SYS_UNSHARE, retNotify), unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, fallback
	p, err := plan.Compile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	out, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	keep, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	pr, err := Prepare(p, Options{Stdin: int(null.Fd()), Stdout: int(out.Fd()), Stderr: int(out.Fd()), CgroupFD: -1, Keep: keep})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := pr.Start()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Started(); err != nil {
		sb.Abandon()
		var f *fault.Fault
		if errors.As(err, &f) && f.Details["errno"] == "EBUSY" {
			return "EBUSY", -1
		}
		t.Fatal(err)
	}
	listener, ok := sb.TakeListener()
	if ok {
		defer unix.Close(listener)
		serve(listener)
	} else {
		serve(-1)
	}
	exit, err := sb.Exited()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Reap(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text), exit.Status.ExitStatus()
}

// refuse answers one notification with ENOTUNIQ, which nothing else gives.
func refuse(t *testing.T, listener int) {
	var n struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	const receive, send = 0xc0502100, 0xc0182101
	ioctl := func(request uintptr, argument unsafe.Pointer) {
		errno := unix.EINTR // Go's scheduler sends signals
		for errno == unix.EINTR {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), request, uintptr(argument))
		}
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	ioctl(receive, unsafe.Pointer(&n))
	if n.nr != unix.SYS_UNSHARE {
		t.Errorf("call %d, want unshare", n.nr)
	}
	answer := struct {
		id         uint64
		val        int64
		err, flags int32
	}{id: n.id, err: -int32(unix.ENOTUNIQ)}
	ioctl(send, unsafe.Pointer(&answer))
}

// TestListener: the launcher gets the listener, and the command nothing of it.
func TestListener(t *testing.T) {
	served := false
	text, _ := unshares(t, nil, func(fd int) {
		if fd >= 0 {
			refuse(t, fd)
			served = true
		}
	})
	if !served || !strings.Contains(text, "not unique") || !strings.HasSuffix(text, "\n1\n4\n") {
		t.Errorf("served %v, printed %q", served, text)
	}
}

// TestListenerRefused: a process whose filters have a listener already gets no
// second one, as in a container whose manager answers some of its calls.
func TestListenerRefused(t *testing.T) {
	fallback := filterOn(unix.SYS_UNSHARE, retErrno|uint32(unix.EXDEV))
	done := make(chan [2]string)
	go func() {
		defer close(done)
		// The thread dies with the goroutine, and its filter with it.
		runtime.LockOSThread()
		listen(t)
		busy, _ := unshares(t, nil, func(int) { t.Error("a second listener") })
		text, _ := unshares(t, fallback, func(fd int) {
			if fd >= 0 {
				t.Error("a second listener")
			}
		})
		done <- [2]string{busy, text}
	}()
	got := <-done
	if got[0] != "EBUSY" || !strings.Contains(got[1], "cross-device") || !strings.HasSuffix(got[1], "\n1\n4\n") {
		t.Errorf("without a fallback %q, with one %q", got[0], got[1])
	}
}

// listen gives the calling thread a filter with a listener that never speaks.
func listen(t *testing.T) {
	code := filterOn(^uintptr(0)>>40, retErrno)
	program := unix.SockFprog{Len: uint16(len(code) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(code)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { unix.Close(int(fd)) })
}
