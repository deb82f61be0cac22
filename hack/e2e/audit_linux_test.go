package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// used is the entry of a call, zero when there is none.
func used(o outcome, name string) spec.SyscallUse {
	for _, s := range o.Syscalls {
		if s.Name == name {
			return s
		}
	}
	return spec.SyscallUse{}
}

// TestAudit: what default allows is recorded with its count and what decides,
// what it refuses stays refused and is told as ever.
func TestAudit(t *testing.T) {
	c := begin(t)
	audit := object{"seccomp": "audit"}
	o := c.run(object{"command": calls("for i in range(7): call(39)\ncall(" + callUnshare + ")\ncall(" + callClone3 + ")\nimport socket\nsocket.socket(socket.AF_UNIX).close()\n" +
		"for family in (16, 38, 40):\n  call(41, family, 3, 0)\nopen('/tmp/x', 'w').close()\nos.system('getconf PAGE_SIZE >/dev/null')"), "isolation": audit})
	if o.text() != strings.Repeat("done\n", 7)+"1\n38\n97\n97\n97\n" || o.Status != spec.StatusSuccess {
		t.Fatalf("%s, %q, %s", o.Status, o.text(), o.errors())
	}
	if s := used(o, "getpid"); s.Count < 7 || len(s.Arguments) != 0 || !slices.Contains(s.Processes, "python3") || len(s.RefusedBy) != 0 {
		t.Errorf("getpid: %+v", s)
	}
	if s := used(o, "socket"); s.Count != 1 || !slices.Equal(s.Arguments, []string{"0&0xffffffff=0x1"}) || !slices.Equal(s.RefusedBy, []string{"strict"}) {
		t.Errorf("socket: %+v", s)
	}
	if s := used(o, "openat"); !slices.Equal(s.Arguments, []string{"2&0x400040=0x0", "2&0x400040=0x40,3&0xc00=0x0"}) {
		t.Errorf("openat: %+v", s)
	}
	if s := used(o, "unshare"); s.Count != 0 || denied(o, "unshare").Count != 1 || denied(o, "socket").Count != 3 {
		t.Errorf("refused calls: %+v, %+v", s, o.Denials)
	}
	if s := used(o, "execve"); s.Name == "" {
		t.Errorf("no execve: %+v", o.Syscalls)
	}
	o = c.run(object{"command": calls("call(" + callInitModule + ")"), "isolation": audit})
	o.is(t, want{spec.StatusKilled, spec.ReasonSeccomp, "E5003", -1, int(syscall.SIGSYS), 128 + int(syscall.SIGSYS)})
	if o := c.run(object{"command": []string{"true"}}); len(o.Syscalls) != 0 {
		t.Errorf("nobody asked: %+v", o.Syscalls)
	}
	o = c.run(object{"command": []string{"true"}, "isolation": object{"seccomp": "audit", "init": false}})
	if o.code != 125 || o.Error == nil || o.Error.Code != "E2008" {
		t.Errorf("without an init: exit %d, %+v", o.code, o.Error)
	}
}

// TestAuditManyProcesses: threads, children, signals and the end of all of them
// under a filter that asks about every call.
func TestAuditManyProcesses(t *testing.T) {
	c := begin(t)
	o := c.run(object{"command": python(`import threading, subprocess, signal, os, time
ts = [threading.Thread(target=lambda: [os.getppid() for _ in range(200)]) for _ in range(8)]
[x.start() for x in ts]; [x.join() for x in ts]
hits = []
signal.signal(signal.SIGALRM, lambda *a: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
while not hits: time.sleep(0.001) # a pause might begin after the only signal
ps = [subprocess.Popen(['sh', '-c', 'true; exec true']) for _ in range(5)]
print([p.wait() for p in ps], hits, flush=True)
subprocess.Popen(['sleep', '1000'])
`), "isolation": object{"seccomp": "audit"}})
	if o.text() != "[0, 0, 0, 0, 0] [1]\n" || o.Status != spec.StatusSuccess {
		t.Errorf("%s, %+v, %q, %s", o.Status, o.Termination, o.text(), o.errors())
	}
	if s := used(o, "getppid"); s.Count < 1600 {
		t.Errorf("getppid: %+v", s)
	}
	o = c.run(object{"command": []string{"sh", "-c", "while :; do :; done & while :; do echo x >/dev/null; done"}, "timeout_ms": 1000, "grace_ms": 60000, "isolation": object{"seccomp": "audit"}})
	o.is(t, want{spec.StatusTimeout, spec.ReasonTimeoutWall, "E3001", -1, int(syscall.SIGTERM), 124})
}

// TestLearning: a profile that is made of a record runs the command again, and
// refuses another one.
func TestLearning(t *testing.T) {
	c := begin(t)
	dir := t.TempDir()
	record, profile := filepath.Join(dir, "record.json"), filepath.Join(dir, "sort.json")
	script := sh("printf 'b\na\n' > /tmp/x && sort /tmp/x")
	o := c.runFlags(append([]string{"--seccomp", "audit", "--"}, script...)...)
	o.printed(t, "a\nb\n")
	if err := os.WriteFile(record, []byte(o.out), 0o600); err != nil {
		t.Fatal(err)
	}
	made := c.finish(c.program("seccomp", "generate", record))
	if made.code != 0 || !strings.Contains(made.stderr, " by sort in "+o.ExecutionID) {
		t.Fatalf("generate: exit %d, %s", made.code, made.stderr)
	}
	if err := os.WriteFile(profile, []byte(made.out), 0o600); err != nil {
		t.Fatal(err)
	}
	c.runFlags(append([]string{"--seccomp", profile, "--"}, script...)...).printed(t, "a\nb\n")
	other := c.runFlags("--seccomp", profile, "--", "sh", "-c", "ln -s a /tmp/b")
	if other.code == 0 || denied(other, "symlinkat").Count+denied(other, "symlink").Count == 0 {
		t.Errorf("another command: exit %d, %+v", other.code, other.Denials)
	}
	if o := c.finish(c.program(append([]string{"seccomp", "test", profile, "--"}, script...)...)); o.code != 0 || !strings.Contains(o.out, "refused nothing") {
		t.Errorf("test: exit %d, %s%s", o.code, o.out, o.stderr)
	}
	if o := c.finish(c.program("seccomp", "test", "strict", "--", "sh", "-c", "sort /dev/null | cat")); o.code != 1 || !strings.Contains(o.out, "pipe2") {
		t.Errorf("test strict: exit %d, %s%s", o.code, o.out, o.stderr)
	}
	if o := c.human("--seccomp", "audit", "--", "true"); o.code != 0 || !strings.Contains(o.stderr, "strict would have refused none") {
		t.Errorf("exit %d, %s", o.code, o.stderr)
	}
}
