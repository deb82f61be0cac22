package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// calls makes system calls by number through ctypes and prints the errno of
// each: the numbers are those of amd64, which the machine of the tests has.
func calls(rest string) []string {
	return python("import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\ndef call(*a):\n  r = l.syscall(*a)\n  print(ctypes.get_errno() if r == -1 else 'done', flush=True)\n" + rest)
}

const (
	callInitModule = "175"
	callUnshare    = "272, 0x10000000"
	callClone3     = "435, 0, 0"
)

// denied is the entry of a call, zero when there is none.
func denied(o outcome, name string) spec.Denial {
	for _, d := range o.Denials {
		if d.Name == name {
			return d
		}
	}
	return spec.Denial{}
}

// TestDenials: what the filter refuses has its errno for the payload and its
// name, arguments and count for the caller; what libraries try as a matter of
// course is not told.
func TestDenials(t *testing.T) {
	c := begin(t)
	o := c.run(object{"command": calls("for i in range(3): call(" + callUnshare + ")\ncall(" + callClone3 + ")\ncall(460)\nos.system('unshare -U true')")})
	if o.text() != "1\n1\n1\n38\n38\n" || o.Status != spec.StatusSuccess {
		t.Errorf("%s, %q", o.Status, o.text())
	}
	d := denied(o, "unshare")
	if d.Kind != "syscall" || d.Count != 4 || !strings.HasPrefix(d.Detail, "EPERM; flags 0x10000000; by python3") || !strings.HasSuffix(d.Detail, ", unshare") {
		t.Errorf("unshare: %+v", d)
	}
	if d := denied(o, "syscall 460"); d.Count != 1 || !strings.HasPrefix(d.Detail, "ENOSYS") {
		t.Errorf("an unknown call: %+v", o.Denials)
	}
	if d := denied(o, "clone3"); d.Count != 0 {
		t.Errorf("clone3 is told: %+v", d)
	}
	if o := c.run(object{"command": []string{"/bin/true"}}); len(o.Denials) != 0 {
		t.Errorf("a quiet program: %+v", o.Denials)
	}
}

// TestDenialsWithoutInit: nobody can hand the listener over there. The answers
// stay the same, and the response says what it does not know.
func TestDenialsWithoutInit(t *testing.T) {
	c := begin(t)
	o := c.run(object{"command": calls("call(" + callUnshare + ")"), "isolation": object{"init": false}})
	if o.text() != "1\n" || len(o.Denials) != 0 || !strings.Contains(strings.Join(o.Warnings, "\n"), "denials says nothing") {
		t.Errorf("printed %q, denials %v, warnings %q", o.text(), o.Denials, o.Warnings)
	}
}

// TestKilledByFilter: the call is named, also when the process would rather not
// die of SIGSYS.
func TestKilledByFilter(t *testing.T) {
	c := begin(t)
	killed := func(n syscall.Signal) want {
		return want{spec.StatusKilled, spec.ReasonSeccomp, "E5003", -1, int(n), 128 + int(n)}
	}
	for _, v := range []struct {
		name, text string
		want       want
	}{
		{"plain", "call(" + callInitModule + ")", killed(syscall.SIGSYS)},
		{"from a thread", "import threading\nt = threading.Thread(target=call, args=(" + callInitModule + ",))\nt.start()\nt.join()", killed(syscall.SIGSYS)},
		{"SIGSYS ignored", "import signal\nsignal.signal(signal.SIGSYS, signal.SIG_IGN)\ncall(" + callInitModule + ")", killed(syscall.SIGKILL)},
		{"SIGSYS blocked", "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGSYS])\ncall(" + callInitModule + ")", killed(syscall.SIGKILL)},
	} {
		t.Run(v.name, func(t *testing.T) {
			o := begin(t).run(object{"command": calls(v.text)})
			o.is(t, v.want)
			if o.text() != "" {
				t.Errorf("it went on: %q", o.text())
			}
			if o.Error == nil || !strings.Contains(o.Error.Message, "init_module") {
				t.Errorf("the call is not named: %+v", o.Error)
			}
			if d := denied(o, "init_module"); d.Count != 1 || !strings.HasPrefix(d.Detail, "killed") {
				t.Errorf("%+v", o.Denials)
			}
		})
	}
	o := c.run(object{"command": calls("import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import ctypes; ctypes.CDLL(None).syscall(" + callInitModule + ")']).returncode)")})
	if o.text() != "-31\n" || o.Status != spec.StatusSuccess || denied(o, "init_module").Count != 1 {
		t.Errorf("a child that is killed: %s, %q, %v", o.Status, o.text(), o.Denials)
	}
}

// TestDenialFlood: refused calls without end have their answers, and the record
// stays small.
func TestDenialFlood(t *testing.T) {
	c := begin(t)
	o := c.run(object{"command": calls("wrong = 0\nfor i in range(5000):\n  if l.syscall(1000 + i) != -1 or ctypes.get_errno() != 38: wrong += 1\nprint(wrong)"), "timeout_ms": 120000})
	total := int64(0)
	for _, d := range o.Denials {
		total += d.Count
	}
	if o.text() != "0\n" || len(o.Denials) != 65 || total != 5000 {
		t.Errorf("printed %q, %d entries, %d calls", o.text(), len(o.Denials), total)
	}
}

// TestCallersFilter: a filter of the caller's own does not open what an escape
// needs, and must list what it allows.
func TestCallersFilter(t *testing.T) {
	c := begin(t)
	open := func(action string) object { return object{"seccomp": object{"defaultAction": action}} }
	for _, action := range []string{"SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"} {
		c.run(object{"command": []string{"/bin/true"}, "isolation": open(action)}).is(t, want{spec.StatusError, spec.ReasonRefused, "E5004", -1, -1, 125})
	}
	names := []string{}
	names = append(names, strings.Fields("read write readv writev pread64 lseek close fcntl dup stat fstat lstat newfstatat statx access faccessat2 getdents64 getcwd readlink open openat brk mmap munmap mprotect mremap madvise execve exit exit_group wait4 getpid gettid getuid geteuid getgid getegid prlimit64 futex set_robust_list set_tid_address rseq arch_prctl rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack getrandom clock_gettime sysinfo uname ioctl pread64 poll unshare mount bpf keyctl init_module clone socket epoll_create1 getppid tgkill sched_getaffinity")...)
	o := c.run(object{"command": calls("call(" + callUnshare + ")\ncall(165, 0, 0, 0, 0, 0)\ncall(321)\ncall(250)\ncall(41, 38, 5, 0)\ncall(16, 0, 0x100005412, 0)\ncall(272 + 100)"),
		"isolation": object{"seccomp": object{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 95,
			"syscalls": []any{object{"names": names, "action": "SCMP_ACT_ALLOW"}}}}})
	if o.text() != "1\n1\n1\n1\n97\n1\n95\n" {
		t.Errorf("printed %q; %+v %+v", o.text(), o.Denials, o.Error)
	}
	for _, name := range []string{"unshare", "mount", "bpf", "keyctl", "socket", "ioctl"} {
		if denied(o, name).Count == 0 {
			t.Errorf("%s is not told: %+v", name, o.Denials)
		}
	}
}
