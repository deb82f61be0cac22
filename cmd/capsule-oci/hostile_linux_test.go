package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const forever = "while :; do sleep 1; done"

// TestDeviceRuleOfBothKinds: a rule without a type is about two kinds of devices of its
// number, and one of a single use about that use.
func TestDeviceRuleOfBothKinds(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	mknod := []string{"CAP_MKNOD"}
	for name, rule := range map[string]specs.LinuxDeviceCgroup{
		"number": {Allow: true, Major: number(1), Minor: number(5), Access: "rwm"},
		"use":    {Allow: true, Access: "m"},
	} {
		b := newBox(t, "sh", "-c", "mknod /out/fuse c 10 229; (exec 3</out/fuse) 2>&1")
		b.config.Process.Capabilities = &specs.LinuxCapabilities{Bounding: mknod, Effective: mknod, Permitted: mknod}
		b.config.Linux.Resources.Devices = append(b.config.Linux.Resources.Devices, rule)
		if out, _, _ := b.call("run", name); !strings.Contains(out, "Operation not permitted") {
			t.Errorf("%s: %q", name, out)
		}
	}
}

// TestStartContainerHookSeesACopy: an interpreter line makes the launcher's own program
// the hook's, which is the copy in memory (CVE-2019-5736).
func TestStartContainerHookSeesACopy(t *testing.T) {
	b := newBox(t, "true")
	script := "#!/proc/self/exe\n"
	if err := os.WriteFile(b.path("rootfs/hook"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	// The program, executed as the hook, is the program of tests that is asked for the
	// names of the files that it runs from.
	b.config.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/hook", Env: []string{showProgram + "=/out/program"}}}}
	b.must("create", "hooked")
	_, _, _ = b.call("start", "hooked") // the hook's status is not what this is about
	if name := b.out("program"); !strings.HasPrefix(name, "/memfd:"+memoryName) {
		t.Errorf("the hook ran %q", name)
	}
}

// TestKillWaitsForNobody: another call on the container does not keep a signal from it.
func TestKillWaitsForNobody(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo up >/out/up; "+forever)
	b.must("run", "--detach", "stopping")
	b.written("up")
	lock, err := os.Open(filepath.Join(b.path("state"), "stopping"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	b.must("kill", "stopping", "KILL")
	b.stops("stopping")
}

// TestDeleteEndsWhoWaits: a forced deletion ends the process for which the owner of the
// lock waits.
func TestDeleteEndsWhoWaits(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo up >/out/up; "+forever)
	b.must("run", "--detach", "waited")
	b.written("up")
	lock, err := os.Open(filepath.Join(b.path("state"), "waited"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	deletion := b.command("delete", "--force", "waited")
	if err := deletion.Start(); err != nil {
		t.Fatal(err)
	}
	b.stops("waited")
	lock.Close()
	if err := deletion.Wait(); err != nil {
		t.Error(err)
	}
}

// TestPausedBeforeStart: a created container that is paused says so, and goes on.
func TestPausedBeforeStart(t *testing.T) {
	b := newBox(t, "true")
	b.must("create", "cold")
	b.must("pause", "cold")
	if st := b.state("cold").Status; st != "paused" {
		t.Errorf("after pause: %s", st)
	}
	b.refused([]string{"E1001", "paused"}, "start", "cold")
	b.must("resume", "cold")
	if st := b.state("cold").Status; st != specs.StateCreated {
		t.Errorf("after resume: %s", st)
	}
	b.must("start", "cold")
	b.stops("cold")
}

// TestDeleteEndsCreation: a process that does not go on while it is built can be ended.
func TestDeleteEndsCreation(t *testing.T) {
	b := newBox(t, "true")
	b.config.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Env: []string{"PATH=/usr/bin:/bin"},
		Args: []string{"sh", "-c", "s=$(cat); s=${s#*'\"pid\":'}; kill -STOP ${s%%[!0-9]*} && echo >" + b.path("out/stopped")}}}}
	b.save()
	create := b.command("create", "--bundle", b.dir, "stuck")
	said, err := os.Create(b.path("said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	create.Stdout, create.Stderr = said, said
	if err := create.Start(); err != nil {
		t.Fatal(err)
	}
	b.written("stopped")
	b.must("delete", "--force", "stuck")
	if err := create.Wait(); err == nil {
		t.Error("the container was created")
	}
	if ids := b.must("list", "-q"); ids != "" || len(groups("stuck")) > 0 {
		t.Errorf("left: %q %v", ids, groups("stuck"))
	}
}

// TestTakenGate: who has taken the gate of a container holds up nobody who ends it.
func TestTakenGate(t *testing.T) {
	b := newBox(t, "true")
	b.must("create", "taken")
	var record struct {
		Process struct{ Pid int }
		GateFD  int `json:"gate_fd"`
	}
	text, err := os.ReadFile(b.path("state/taken/record.json"))
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err != nil {
		t.Fatal(err)
	}
	process, err := unix.PidfdOpen(record.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	gate, err := unix.PidfdGetfd(process, record.GateFD, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(gate)
	// Stopped, so that the caller is ours: until it is, it would take one that has come.
	if err := unix.PidfdSendSignal(process, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Waitid(unix.P_PIDFD, process, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	start := b.command("start", "taken")
	var said bytes.Buffer
	start.Stderr = &said
	if err := start.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, gate, "the caller")
	line, _, err := unix.Accept4(gate, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(line)
	b.must("delete", "--force", "taken")
	if err := start.Wait(); err == nil || !strings.Contains(said.String(), "E3005") {
		t.Errorf("%v: %s", err, said.String())
	}
}

// TestExecThatHangs: a process that does not come to its command holds up nobody who wants
// to end the container. Here a file system that never answers stops it; a command of the
// container could by a signal.
func TestExecThatHangs(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo up >/out/up; "+forever)
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lack(t, "this host has no /dev/fuse: "+err.Error())
	}
	defer fuse.Close()
	b.mkdir("below/silent")
	silent := b.path("below/silent")
	if err := unix.Mount("silent", silent, "fuse", unix.MS_NOSUID|unix.MS_NODEV, "fd="+strconv.Itoa(int(fuse.Fd()))+",rootmode=40000,user_id=0,group_id=0"); err != nil {
		lack(t, "this host mounts no fuse: "+err.Error())
	}
	defer unix.Unmount(silent, unix.MNT_DETACH) //nolint:errcheck // the directory could not be removed then
	b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/below", Type: "bind", Source: b.path("below"), Options: []string{"rbind"}})
	b.must("run", "--detach", "hung")
	b.written("up")
	more := b.command("exec", "--cwd", "/below/silent/x", "hung", "true")
	if err := more.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); len(childrenOf(t, more.Process.Pid)) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("exec starts no process")
		}
	}
	b.must("delete", "--force", "hung")
	if err := more.Wait(); err == nil {
		t.Error("the process was executed")
	}
}

// childrenOf are the children of all threads of a process.
func childrenOf(t *testing.T, pid int) (list []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // the thread may have ended
		list = append(list, strings.Fields(string(text))...)
	}
	return list
}

// TestGroupOfAnother: deleting a container that has ended leaves the group of the next one
// with its path alone.
func TestGroupOfAnother(t *testing.T) {
	b := newBox(t, "true")
	b.config.Linux.CgroupsPath = "/capsule-oci/next" + strconv.Itoa(os.Getpid())
	b.must("run", "--keep", "first")
	b.config.Process.Args = []string{"sh", "-c", forever}
	b.must("run", "--detach", "second")
	b.must("delete", "--force", "first")
	if st := b.state("second").Status; st != specs.StateRunning {
		t.Errorf("the second is %s", st)
	}
	b.must("exec", "second", "true")
}

// TestSameIDElsewhere: the containers of two state directories have nothing in common, and what
// is deleted without its record is not the other one's group.
func TestSameIDElsewhere(t *testing.T) {
	id := "same" + strconv.Itoa(os.Getpid())
	one, other := newBox(t, "sh", "-c", forever), newBox(t, "sh", "-c", forever)
	one.must("run", "--detach", id)
	other.must("run", "--detach", id)
	other.must("kill", id, "KILL")
	other.stops(id)
	if err := os.WriteFile(other.path("state/"+id+"/record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	other.must("delete", "--force", id)
	if st := one.state(id).Status; st != specs.StateRunning {
		t.Errorf("the other one is %s", st)
	}
	if left := groups(id); len(left) == 0 {
		t.Error("the other one has no group")
	}
}

// TestCreateIsKilledInItsGroup: what is left of a creation that died before it could note
// its control group goes with the container.
func TestCreateIsKilledInItsGroup(t *testing.T) {
	b := newBox(t, "true")
	id := "early" + strconv.Itoa(os.Getpid())
	b.must("create", id)
	made := groups(id)
	b.must("delete", "--force", id)
	if len(made) == 0 {
		t.Fatal("there is no control group")
	}
	b.mkdir("state/" + id)
	for name, what := range map[string]any{"config.json": b.config, "record.json": map[string]any{"id": id, "bundle": b.dir}} {
		text, err := json.Marshal(what)
		if err == nil {
			err = os.WriteFile(b.path("state/"+id+"/"+name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range made[:(len(made)+1)/2] {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if st := b.state(id).Status; st != specs.StateStopped {
		t.Errorf("it is %s", st)
	}
	b.must("delete", id)
	if left := groups(id); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestDamagedRecord: what runs is ended although its record cannot be read, or its configuration.
func TestDamagedRecord(t *testing.T) {
	for _, file := range []string{"record.json", "config.json"} {
		t.Run(file, func(t *testing.T) { damaged(t, file) })
	}
}

func damaged(t *testing.T, file string) {
	b := newBox(t, "sh", "-c", "echo up >/out/up; "+forever)
	id := "damaged" + strconv.Itoa(os.Getpid())
	if file == "config.json" { // with the record the group is known, wherever it is
		b.config.Linux.CgroupsPath = "/capsule-oci/elsewhere/" + id
	}
	b.must("run", "--detach", id)
	b.written("up")
	pid := b.state(id).Pid
	if err := os.WriteFile(b.path("state/"+id+"/"+file), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.refused([]string{"E6006", "delete --force"}, "delete", id)
	b.must("delete", "--force", id)
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		await(t, fd, "the end of the container's process")
		unix.Close(fd)
	}
	if left := groups(id); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
