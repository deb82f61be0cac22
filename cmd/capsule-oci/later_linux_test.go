package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestLaterProcess: what a later process gets from outside is there before its command:
// a limit of processes counts only itself, and the scheduler is its own.
func TestLaterProcess(t *testing.T) {
	b := newBox(t, "sh", "-c", forever)
	b.must("run", "--detach", "later")
	b.refused([]string{"E2009", "process.user.uid"}, "exec", "--user", "4294967295", "later", "id")
	process := *b.config.Process
	process.User = specs.User{UID: 4321, GID: 4321}
	process.Args = []string{"sh", "-c", `while read -r line; do case $line in "Max processes"*) set -- $line; echo $4;; esac; done </proc/self/limits
		read -r line </proc/self/stat; set -- ${line##*) }; echo ${39}; cat /proc/self/oom_score_adj`}
	process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 1, Hard: 1}}
	process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	adjust := 300
	process.OOMScoreAdj = &adjust
	text, err := json.Marshal(process)
	if err == nil {
		err = os.WriteFile(b.path("process"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The shell cannot fork, so cat is not executed.
	out, bad, _ := b.call("exec", "--process", b.path("process"), "later")
	if out != "1\n3\n" || !strings.Contains(bad, "fork") {
		t.Errorf("%q %q", out, bad)
	}
	process.Rlimits[0].Soft, process.Rlimits[0].Hard = 2, 2
	if text, err = json.Marshal(process); err == nil {
		err = os.WriteFile(b.path("process"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, bad, _ := b.call("exec", "--process", b.path("process"), "later"); out != "2\n3\n300\n" {
		t.Errorf("%q %q", out, bad)
	}
}

// TestHookTimeout: what a hook has started ends with it.
func TestHookTimeout(t *testing.T) {
	for kind, set := range map[string]func(*specs.Hooks, specs.Hook){
		"createRuntime":   func(h *specs.Hooks, one specs.Hook) { h.CreateRuntime = []specs.Hook{one} },
		"createContainer": func(h *specs.Hooks, one specs.Hook) { h.CreateContainer = []specs.Hook{one} },
	} {
		b := newBox(t, "true")
		limit := 1
		b.config.Hooks = &specs.Hooks{}
		set(b.config.Hooks, specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000 & sleep 1000"}, Env: []string{"PATH=/usr/bin:/bin", "CAPSULE_HOOK=" + b.dir}, Timeout: &limit})
		b.refused([]string{"hook " + kind, "timeout"}, "create", "late")
		files, err := filepath.Glob("/proc/[0-9]*/environ")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, _ := os.ReadFile(file) // it may be gone
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil || !strings.Contains(string(text), "CAPSULE_HOOK="+b.dir) {
				continue
			}
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue // it is gone
			}
			if err := readable(fd); err != nil {
				t.Errorf("%s: %d is left: %v", kind, pid, err)
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may have ended by now
			}
			unix.Close(fd)
		}
	}
}

// TestExecAffinity: a later process runs where it is to, by its own word or the container's, and
// without a word for the end wherever its group may.
func TestExecAffinity(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		lack(t, "this host has one CPU")
	}
	var last int
	for i := range 1024 {
		if all.IsSet(i) {
			last = i
		}
	}
	b := newBox(t, "sh", "-c", "grep Cpus_allowed_list /proc/self/status >/out/first; "+forever)
	b.config.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: strconv.Itoa(last), Final: strconv.Itoa(last)}
	b.must("run", "--detach", "where")
	list := func() string {
		return strings.TrimSpace(strings.TrimPrefix(b.must("exec", "where", "grep", "Cpus_allowed_list", "/proc/self/status"), "Cpus_allowed_list:"))
	}
	whole := strings.TrimSpace(strings.TrimPrefix(b.written("first"), "Cpus_allowed_list:"))
	if whole == strconv.Itoa(last) {
		t.Errorf("the first process runs on %s", whole)
	}
	if got := list(); got != strconv.Itoa(last) {
		t.Errorf("a later one runs on %s, want %d", got, last)
	}
	process := *b.config.Process
	process.Args, process.ExecCPUAffinity = []string{"grep", "Cpus_allowed_list", "/proc/self/status"}, &specs.CPUAffinity{Initial: strconv.Itoa(last)}
	text, err := json.Marshal(process)
	if err == nil {
		err = os.WriteFile(b.path("process"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(b.must("exec", "--process", b.path("process"), "where"))[1]; got != whole {
		t.Errorf("one with a first word alone runs on %s, want %s", got, whole)
	}
}

// TestMemoryPolicy: of a container and of a later process, where the kernel knows of nodes.
func TestMemoryPolicy(t *testing.T) {
	if _, err := os.Stat("/proc/self/numa_maps"); err != nil {
		t.Skip("this kernel knows of no memory nodes (CONFIG_NUMA)")
	}
	look := []string{"sh", "-c", "grep -c ' bind=static:0 ' /proc/self/numa_maps"}
	b := newBox(t, look...)
	b.config.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	if out := strings.TrimSpace(b.must("run", "bound")); out == "0" || out == "" {
		t.Errorf("%q parts of the memory are bound", out)
	}
	b.config.Process.Args = []string{"sh", "-c", forever}
	b.must("run", "--detach", "later")
	if out := strings.TrimSpace(b.must(append([]string{"exec", "later"}, look...)...)); out == "0" || out == "" {
		t.Errorf("a later process: %q parts of the memory are bound", out)
	}
	b.config.Linux.MemoryPolicy.Nodes = "1000"
	b.config.Process.Args = []string{"true"}
	b.refused([]string{"linux.memoryPolicy"}, "run", "nowhere")
}

// TestExecInOwnUserNamespace: a container's first process may be in a user namespace of its own
// making, which denies setgroups, and a later one has no group of the caller's there either.
func TestExecInOwnUserNamespace(t *testing.T) {
	b := newBox(t, "unshare", "--user", "--map-root-user", "sh", "-c", "echo up >/out/up; "+forever)
	b.config.Process.User = specs.User{UID: 1234, GID: 1234}
	if err := os.Chmod(b.path("out"), 0o777); err != nil {
		t.Fatal(err)
	}
	b.must("run", "--detach", "own")
	b.written("up")
	cmd := b.command("exec", "--user", "0:0", "own", "sh", "-c", "cat /proc/self/uid_map; grep Groups /proc/self/status")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{7}}}
	out, err := cmd.CombinedOutput()
	if f := strings.Fields(string(out)); err != nil || len(f) != 4 || f[1] != "1234" || f[3] != "Groups:" {
		t.Errorf("%v: %q", err, out)
	}
	b.refused([]string{"process.user.additionalGids"}, "exec", "--user", "0:0", "--additional-gids", "7", "own", "id")
}

// TestFewDescriptors: a command that may open nothing needs no descriptor for being made, be it
// the first one, a later one, or the first in the pid namespace of others.
func TestFewDescriptors(t *testing.T) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		lack(t, "busybox is not installed: hack/deps.sh peers")
	}
	few := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 3, Hard: 3}}
	b := newBox(t, path, "sh", "-c", "while :; do "+path+" sleep 1; done")
	b.config.Process.Rlimits = few
	b.must("run", "--detach", "first")
	if out := b.must("exec", "first", path, "sh", "-c", "ulimit -n; ulimit -Hn"); out != "3\n3\n" {
		t.Errorf("a later one: %q", out)
	}
	other := newBox(t, path, "sh", "-c", "ulimit -n; ulimit -Hn")
	other.config.Process.Rlimits = few
	for i := range other.config.Linux.Namespaces {
		if n := &other.config.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + strconv.Itoa(b.state("first").Pid) + "/ns/pid"
		}
	}
	if out := other.must("run", "other"); out != "3\n3\n" {
		t.Errorf("in the pid namespace of another: %q", out)
	}
}
