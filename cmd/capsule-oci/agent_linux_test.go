package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// withFilters makes the calls of a box those of a program that has its filter compiler beside it.
func (b *box) withFilters() {
	b.t.Helper()
	b.mkdir("bin")
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	helper := "../../bin/capsule-seccomp"
	if dir := os.Getenv("CAPSULE_BIN"); dir != "" {
		helper = filepath.Join(dir, "capsule-seccomp")
	}
	if _, err := os.Stat(helper); err != nil {
		helper = b.path("bin/made")
		build := exec.Command("go", "build", "-o", helper, "../capsule-seccomp")
		build.Env = append(os.Environ(), "CGO_ENABLED=1")
		if out, err := build.CombinedOutput(); err != nil {
			b.t.Fatalf("%v\n%s", err, out)
		}
	}
	for name, from := range map[string]string{"bin/capsule-oci": self, "bin/capsule-seccomp": helper} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(b.path(name), text, 0o755)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	b.program = b.path("bin/capsule-oci")
}

// agent answers notifications of calls of a container with EXDEV.
type agent struct {
	t      *testing.T
	socket int
	dir    string
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	// The directory of a test may be longer than an address.
	dir, err := os.MkdirTemp("", "oci")
	if err != nil {
		t.Fatal(err)
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrUnix{Name: dir + "/s"})
	}
	if err == nil {
		err = unix.Listen(s, 4)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(s)
		os.RemoveAll(dir)
	})
	return &agent{t, s, dir}
}

// one takes a listener, answers its first notification and returns the state that came along and
// the number of the call.
func (a *agent) one() (state specs.ContainerProcessState, call int32) {
	await(a.t, a.socket, "a listener")
	c, _, err := unix.Accept4(a.socket, unix.SOCK_CLOEXEC)
	if err != nil {
		a.t.Error(err)
		return
	}
	defer unix.Close(c)
	text, oob := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := unix.Recvmsg(c, text, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		a.t.Error(err)
		return
	}
	messages, err := unix.ParseSocketControlMessage(oob[:m])
	if err != nil || len(messages) != 1 {
		a.t.Errorf("%v %v", messages, err)
		return
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err == nil {
		err = json.Unmarshal(text[:n], &state)
	}
	if err != nil || len(fds) != 1 {
		a.t.Errorf("%v %v: %s", fds, err, text[:n])
		return
	}
	defer unix.Close(fds[0])
	await(a.t, fds[0], "a notification")
	// struct seccomp_notif of 80 bytes: id, pid, flags, and the call; seccomp_notif_resp: id, value, error, flags.
	var asked [80]byte
	const receive, answer = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_RECV and _SEND
	if errno := ioctl(fds[0], receive, unsafe.Pointer(&asked)); errno != 0 {
		a.t.Error(errno)
		return
	}
	said := struct {
		id    uint64
		value int64
		errno int32
		flags uint32
	}{id: *(*uint64)(unsafe.Pointer(&asked)), errno: -int32(unix.EXDEV)}
	if errno := ioctl(fds[0], answer, unsafe.Pointer(&said)); errno != 0 {
		a.t.Error(errno)
	}
	return state, *(*int32)(unsafe.Pointer(&asked[16]))
}

// ioctl calls until no signal, as the Go runtime sends itself, cuts it short.
func ioctl(fd int, request uintptr, argument unsafe.Pointer) unix.Errno {
	for {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != unix.EINTR {
			return errno
		}
	}
}

// TestSeccompAgent: calls of a container, and of a later process in it, are answered by the agent
// of its configuration.
func TestSeccompAgent(t *testing.T) {
	for _, restricted := range []bool{true, false} {
		// What the filter refuses by itself is never asked of the agent, who might let it pass.
		b := newBox(t, "sh", "-c", "chroot / true 2>/out/refused; mkdir /out/x 2>/out/.first; mv /out/.first /out/first; "+forever)
		b.withFilters()
		a := newAgent(t)
		b.config.Process.NoNewPrivileges = restricted
		b.config.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: a.dir + "/s", ListenerMetadata: "about",
			Flags:    []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}, {Names: []string{"chroot"}, Action: specs.ActErrno}}}
		type answered struct {
			state specs.ContainerProcessState
			call  int32
		}
		told := make(chan answered)
		serve := func() {
			var all answered
			defer func() { told <- all }() // in failure too
			all.state, all.call = a.one()
		}
		go serve()
		b.must("run", "--detach", "asks")
		got := <-told
		pid := b.state("asks").Pid
		if s := got.state; s.Pid != pid || s.Metadata != "about" || len(s.Fds) != 1 || s.Fds[0] != specs.SeccompFdName || s.State.ID != "asks" || s.State.Status != specs.StateCreating ||
			got.call != unix.SYS_MKDIRAT && got.call != 83 {
			t.Errorf("restricted %v: the agent is told %+v", restricted, got)
		}
		if text := b.written("first"); !strings.Contains(text, "cross-device") {
			t.Errorf("restricted %v: the command is told %q", restricted, text)
		}
		if text := b.written("refused"); !strings.Contains(text, "not permitted") {
			t.Errorf("restricted %v: a refused call is told %q", restricted, text)
		}
		go serve()
		_, bad, status := b.call("exec", "--pid-file", b.path("pid"), "asks", "mkdir", "/out/y")
		got = <-told
		number, err := os.ReadFile(b.path("pid"))
		if err != nil || strconv.Itoa(got.state.Pid) != string(number) || got.state.State.Pid != pid || got.state.State.Status != specs.StateRunning {
			t.Errorf("restricted %v: the agent is told %+v of %s", restricted, got, number)
		}
		if status == 0 || !strings.Contains(bad, "cross-device") {
			t.Errorf("restricted %v: a later process: %d %q", restricted, status, bad)
		}
		b.must("delete", "--force", "asks")
		b.config.Linux.Seccomp.ListenerPath = a.dir + "/nobody"
		b.refused([]string{"linux.seccomp.listenerPath"}, "create", "alone")
		b.config.Linux.Seccomp.ListenerPath = ""
		b.refused([]string{"E2003", "linux.seccomp.listenerPath"}, "create", "none")
		b.config.Linux.Seccomp.ListenerPath = a.dir + "/s"
		names := []string{"write"}
		if !restricted {
			// A later process makes them before there is one for the agent to be told of.
			names = append(names, "read", "close", "clone", "sendmsg")
		}
		for _, name := range names {
			b.config.Linux.Seccomp.Syscalls[0].Names = []string{name}
			b.refused([]string{"E2003", "linux.seccomp.syscalls[0]"}, "create", "ours")
		}
		if ids := b.must("list", "-q"); ids != "" {
			t.Errorf("left: %q", ids)
		}
	}
}
