package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// spyOn makes the test binary, as a container's command, look at every other process
// that it sees, for a way to the file of the host that is so named.
const spyOn = "CAPSULE_OCI_SPY"

// callers is a word in the environment and in the arguments of the program that is called.
const callers = "of-the-caller"

// spy looks until it is killed and writes what it finds to /out/found, once it looks
// /out/up. It has CAP_SYS_PTRACE in the user namespace of the host.
func spy(secret string) {
	own := spied("self")
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	found, err := os.OpenFile("/out/found", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(err)
	must(os.WriteFile("/out/up", []byte("up"), 0o644))
	self := strconv.Itoa(os.Getpid())
	seen := map[string]bool{}
	for {
		entries, err := os.ReadDir("/proc")
		must(err)
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err != nil || e.Name() == self {
				continue
			}
			if !seen[e.Name()] {
				seen[e.Name()] = true
				// How many there were tells whether anything was looked at.
				must(os.WriteFile("/out/.seen", []byte(strconv.Itoa(len(seen))), 0o644))
				must(os.Rename("/out/.seen", "/out/seen"))
			}
			for _, way := range ways(e.Name(), secret, own) {
				_, err := fmt.Fprintln(found, way)
				must(err)
			}
		}
	}
}

// spied is what a process may have that another of the container may not.
func spied(pid string) map[string]string {
	status := map[string]string{}
	// What somebody may in another user namespace is said of that alone.
	own, _ := os.Readlink("/proc/self/ns/user")
	if theirs, err := os.Readlink("/proc/" + pid + "/ns/user"); err != nil || theirs != own {
		return status
	}
	text, _ := os.ReadFile("/proc/" + pid + "/status") // it may be gone
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.HasPrefix(name, "Cap") {
			status[name] = strings.TrimSpace(value)
		}
	}
	return status
}

// ways are those to the host that a process offers now.
func ways(pid, secret string, own map[string]string) (list []string) {
	dir := "/proc/" + pid + "/"
	up := strings.Repeat("/..", 30)
	try := func(p string) {
		if text, err := os.ReadFile(p); err == nil && string(text) == "secret" {
			list = append(list, p)
		}
	}
	try(dir + "root" + secret)
	try(dir + "cwd" + up + secret)
	fds, _ := os.ReadDir(dir + "fd") // it may be gone
	for _, fd := range fds {
		try(dir + "fd/" + fd.Name() + up + secret)
	}
	if exe, err := os.Readlink(dir + "exe"); err == nil && strings.HasSuffix(exe, ".test") && exe != "/attack.test" {
		list = append(list, dir+"exe is "+exe)
	}
	for _, file := range []string{"environ", "cmdline"} {
		// What the caller of the program said to it, and what it has in its environment.
		if text, err := os.ReadFile(dir + file); err == nil && strings.Contains(string(text), callers) {
			list = append(list, dir+file)
		}
	}
	for name, value := range spied(pid) {
		if have := own[name]; value != have && name != "CapInh" && value > have {
			list = append(list, dir+"status has "+name+" "+value)
		}
	}
	return list
}

// TestSpiedExec: a process that joins a container is seen there as what it becomes and
// never as what it was: with no way to the host and no right that the container lacks.
// CAP_SYS_PTRACE passes over that it cannot be dumped.
func TestSpiedExec(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*specs.Spec)
	}{
		{"no new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
		{"new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
	} {
		t.Run(c.name, func(t *testing.T) { spiedExec(t, c.change) })
	}
}

func spiedExec(t *testing.T, change func(*specs.Spec)) {
	b := newSpy(t, change)
	for i := 0; b.again(i); i++ {
		b.must("exec", "--env", spyOn+"=", "--user", "7:7", "--pid-file", b.path(callers), "spy", "true")
	}
	b.found()
}

// TestSpiedCreate: nor is there anything to see of a container that comes to the pid namespace of
// another, as in a pod with shareProcessNamespace, and it shows the processes of both.
func TestSpiedCreate(t *testing.T) {
	for _, restricted := range []bool{true, false} {
		t.Run("restricted "+strconv.FormatBool(restricted), func(t *testing.T) { spiedCreate(t, restricted) })
	}
}

func spiedCreate(t *testing.T, restricted bool) {
	b := newSpy(t, func(s *specs.Spec) { s.Process.NoNewPrivileges = restricted })
	for i := range b.config.Linux.Namespaces {
		if n := &b.config.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + strconv.Itoa(b.state("spy").Pid) + "/ns/pid"
		}
	}
	b.config.Process.Args = []string{"sh", "-c", "cat /proc/1/comm; exit 3"}
	b.config.Process.Env = nil
	b.config.Process.User = specs.User{UID: 7, GID: 7}
	b.config.Process.Capabilities = &specs.LinuxCapabilities{}
	for i := 0; b.again(i); i++ {
		if out, bad, status := b.call("run", "member"+strconv.Itoa(i)); status != 3 || out != "attack.test\n" {
			t.Fatalf("%d %q %q", status, out, bad)
		}
	}
	b.found()
	b.config.Process.Args = []string{"no-such-command"}
	b.refused([]string{"E3003"}, "create", "none")
	b.config.Process.Args = []string{"sh", "-c", forever}
	b.must("run", "--detach", "stays")
	if out := b.must("exec", "stays", "cat", "/proc/1/comm"); out != "attack.test\n" {
		t.Errorf("a later process sees %q", out)
	}
	pid := b.state("stays").Pid
	b.must("delete", "--force", "stays")
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil { // process 1 of the namespace is the spy's
		t.Error(err)
	}
	if ids := strings.TrimSpace(b.must("list", "-q")); ids != "spy" {
		t.Errorf("left: %q", ids)
	}
}

// spyBox is a box with a container that spies.
type spyBox struct {
	*box
	rounds int
}

func newSpy(t *testing.T, change func(*specs.Spec)) *spyBox {
	t.Helper()
	b := &spyBox{newBox(t, "/attack.test"), 40}
	change(b.config)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	secret := b.path("secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	caps := []string{"CAP_SYS_PTRACE"}
	b.config.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	b.config.Process.Env = append(b.config.Process.Env, spyOn+"="+secret)
	b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/attack.test", Type: "bind", Source: self, Options: []string{"bind", "ro"}})
	b.must("run", "--detach", "spy")
	b.written("up")
	if os.Getenv("CAPSULE_TEST_SLOW") != "" {
		b.rounds = 4
	}
	t.Setenv("CAPSULE_OCI_CALLER", callers)
	return b
}

// again tells whether there is to be a round i: so many as are to be, and more where the spy
// has not come to look at any of them, which are soon over, on a busy machine.
func (b *spyBox) again(i int) bool { return i < b.rounds || i < 20*b.rounds && b.out("seen") == "" }

// found tells of what the spy has found.
func (b *spyBox) found() {
	t := b.t
	t.Helper()
	if found := b.out("found"); found != "" {
		lines := strings.Split(found, "\n")
		t.Errorf("%d ways to the host:\n%s", len(lines)-1, strings.Join(lines[:min(len(lines), 12)], "\n"))
	}
	if seen, err := strconv.Atoi(b.out("seen")); err != nil || seen == 0 {
		t.Errorf("nothing was looked at: %q", b.out("seen"))
	}
}

// TestSharedProcesses: a container in the pid namespace of another is built with all that the
// others have: hooks, a terminal's place, copies, limits, and its start is reported.
func TestSharedProcesses(t *testing.T) {
	b := newBox(t, "sh", "-c", forever)
	b.must("create", "first")
	for i := range b.config.Linux.Namespaces {
		if n := &b.config.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + strconv.Itoa(b.state("first").Pid) + "/ns/pid"
		}
	}
	b.mkdir("rootfs/data")
	if err := os.WriteFile(b.path("rootfs/data/file"), []byte("copied\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	adjust := 400
	b.config.Process.OOMScoreAdj = &adjust
	b.config.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 77, Hard: 88}}
	b.config.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch}
	b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	for i := range b.config.Mounts {
		if m := &b.config.Mounts[i]; m.Type == "proc" {
			m.Options = []string{"nosuid", "noexec", "hidepid=0"}
		}
	}
	say := func(name, dir string) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + name + " >>" + dir + "/hooks"}}
	}
	b.config.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{say("runtime", b.path("out"))}, CreateContainer: []specs.Hook{say("container", b.path("out"))},
		StartContainer: []specs.Hook{say("start", "/out")}, Poststart: []specs.Hook{say("after", b.path("out"))}}
	b.config.Process.Args = []string{"sh", "-c", `cat /data/file /proc/self/oom_score_adj; while read -r line; do case $line in "Max processes"*) set -- $line; echo $3 $4;; esac; done </proc/self/limits
		read -r line </proc/self/stat; set -- ${line##*) }; echo ${39}; grep -c ' /proc .*nosuid,noexec' /proc/self/mountinfo; ps -o pid= -p 1 >/dev/null && echo one; exit 4`}
	out, bad, status := b.call("run", "second")
	if status != 4 || out != "copied\n400\n77 88\n3\n1\none\n" {
		t.Errorf("%d %q %q", status, out, bad)
	}
	if got := strings.Join(strings.Fields(b.out("hooks")), " "); got != "runtime container start after" {
		t.Errorf("hooks: %q", got)
	}
	b.config.Hooks = nil
	b.config.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 1, Hard: 1}}
	b.config.Process.Args = []string{"/data"} // it may be executed as far as its mode goes
	b.refused([]string{"E3003"}, "run", "third")
	b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/other", Type: "proc", Source: "proc"})
	b.refused([]string{"E2009", "mounts["}, "create", "fourth")
	if ids := strings.TrimSpace(b.must("list", "-q")); ids != "first" {
		t.Errorf("left: %q", ids)
	}
	// Process 1 of the namespace ends when all others are reaped, which is the part of whoever
	// called the runtime.
	for pid, err := 1, error(nil); pid > 0 && err == nil; {
		pid, err = unix.Wait4(-1, nil, unix.WNOHANG, nil)
	}
}
