package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestHostileRoots: what a root brings leads nowhere outside of it.
func TestHostileRoots(t *testing.T) {
	for _, c := range []struct {
		name, link string
	}{{"proc is a link", "proc"}, {"sys is a link", "sys"}, {"dev/mqueue is a link", "dev/mqueue"}} {
		b := newBox(t, "true")
		b.config.Mounts = slices.DeleteFunc(b.config.Mounts, func(m specs.Mount) bool {
			return strings.HasPrefix(m.Destination, "/dev") && m.Destination != "/dev/mqueue"
		})
		if err := os.MkdirAll(filepath.Dir(b.path("rootfs/"+c.link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/tmp", b.path("rootfs/"+c.link)); err != nil {
			t.Fatal(err)
		}
		b.refused([]string{"too many levels of symbolic links"}, "create", "hostile")
	}
	t.Run("dev", func(t *testing.T) {
		b := newBox(t, "true")
		b.mkdir("elsewhere")
		if err := os.Symlink(b.path("elsewhere"), b.path("rootfs/dev")); err != nil {
			t.Fatal(err)
		}
		b.refused([]string{"E2004"}, "create", "hostile")
		if left, err := os.ReadDir(b.path("elsewhere")); err != nil || len(left) > 0 {
			t.Errorf("on the host: %v %v", left, err)
		}
	})
	t.Run("mount point", func(t *testing.T) {
		// An absolute link means a place inside of the root, also for what is made there.
		b := newBox(t, "sh", "-c", "ls /target/made >/out/seen")
		b.mkdir("elsewhere")
		b.mkdir("rootfs" + b.path("elsewhere"))
		if err := os.Symlink(b.path("elsewhere"), b.path("rootfs/target")); err != nil {
			t.Fatal(err)
		}
		b.mkdir("source")
		if err := os.WriteFile(b.path("source/file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/target/made", Type: "bind", Source: b.path("source"), Options: []string{"bind"}})
		b.must("run", "inside")
		if got := strings.TrimSpace(b.out("seen")); got != "file" {
			t.Errorf("the mount shows %q", got)
		}
		if left, err := os.ReadDir(b.path("elsewhere")); err != nil || len(left) > 0 {
			t.Errorf("on the host: %v %v", left, err)
		}
	})
}

// TestExchangedMountPoint: a mount point that another container exchanges for a link
// while it is mounted on leads nowhere outside (CVE-2021-30465).
func TestExchangedMountPoint(t *testing.T) {
	b := newBox(t, "true")
	b.mkdir("rootfs/a")
	b.mkdir("victim")
	if err := os.Symlink(strings.Repeat("../", 20)+b.path("victim"), b.path("rootfs/link")); err != nil {
		t.Fatal(err)
	}
	b.mkdir("source")
	if err := os.WriteFile(b.path("source/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/a/made", Type: "bind", Source: b.path("source"), Options: []string{"bind"}})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, b.path("rootfs/a"), unix.AT_FDCWD, b.path("rootfs/link"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	rounds := 30
	if os.Getenv("CAPSULE_TEST_SLOW") != "" {
		rounds = 5
	}
	for i := range rounds {
		_, bad, status := b.call("create", "race")
		if status == 0 {
			b.must("delete", "--force", "race")
		} else if !strings.Contains(bad, "E2004") {
			t.Errorf("round %d: %s", i, bad)
		}
		if left, err := os.ReadDir(b.path("victim")); err != nil || len(left) > 0 {
			t.Fatalf("round %d: on the host: %v %v", i, left, err)
		}
	}
	close(stop)
	<-done
}

// TestDirectoriesOfTheLauncher: no working directory leads through a descriptor
// (CVE-2024-21626).
func TestDirectoriesOfTheLauncher(t *testing.T) {
	b := newBox(t, "true")
	for fd := 3; fd < 24; fd++ {
		b.config.Process.Cwd = "/proc/self/fd/" + strconv.Itoa(fd)
		_, bad, status := b.call("create", "cwd")
		if status != 1 || !strings.Contains(bad, "E1006") {
			t.Errorf("%s: exit status %d: %s", b.config.Process.Cwd, status, bad)
		}
	}
	b.config.Process.Cwd = "/"
	b.config.Process.Args = []string{"sh", "-c", "while :; do sleep 1; done"}
	b.must("create", "run")
	b.must("start", "run")
	b.refused([]string{"E1006"}, "exec", "--cwd", "/proc/self/fd/7", "run", "pwd")
	b.refused([]string{"E1006"}, "exec", "--cwd", "/proc/1/root", "run", "pwd")
}

// TestProgramIsACopy: what stands for our program in a container cannot be written, and
// is not the file on the host (CVE-2019-5736).
func TestProgramIsACopy(t *testing.T) {
	b := newBox(t, "true")
	b.must("create", "held")
	pid := b.state("held").Pid
	exe := "/proc/" + strconv.Itoa(pid) + "/exe"
	name, err := os.Readlink(exe)
	if err != nil || !strings.HasPrefix(name, "/memfd:"+memoryName) {
		t.Fatalf("the held process runs %q %v", name, err)
	}
	handle, err := unix.Open(exe, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(handle)
	b.must("delete", "--force", "held")
	// Nobody executes it any more, so ETXTBSY is no protection now; the seals are.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(handle), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte("evil"))
		unix.Close(fd)
	}
	if err == nil {
		t.Error("the program was written to")
	}
	// The trick with an interpreter makes it the copy again at most.
	b.config.Process.Args = []string{"/proc/self/exe", "--version"}
	_, _, _ = b.call("run", "again") // whatever it does
	if self, err := os.Executable(); err != nil {
		t.Fatal(err)
	} else if text, err := exec.Command("sh", "-c", "head -c 4 "+self+" | tail -c 3").Output(); err != nil || string(text) != "ELF" {
		t.Errorf("%q %v", text, err)
	}
}

// TestRefusals: what is not supported is refused by name, and nothing is left of it.
func TestRefusals(t *testing.T) {
	for field, change := range map[string]func(*specs.Spec){
		"process.selinuxLabel":          func(s *specs.Spec) { s.Process.SelinuxLabel = "x" },
		"process.execCPUAffinity.final": func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "x"} },
		"process.scheduler.policy":      func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_X"} },
		"process.ioPriority.class":      func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} },
		"process.capabilities.bounding[0]": func(s *specs.Spec) {
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_X"}}
		},
		"process.rlimits":          func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"process.cwd":              func(s *specs.Spec) { s.Process.Cwd = "tmp" },
		"linux.netDevices":         func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} },
		"linux.intelRdt":           func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
		"linux.memoryPolicy.mode":  func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} },
		"linux.timeOffsets":        func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} },
		"linux.rootfsPropagation":  func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" },
		"linux.personality.domain": func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "X"} },
		"linux.seccomp.defaultAction": func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActNotify, ListenerPath: "/x"}
		},
		"linux.sysctl.kernel.panic":       func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"linux.sysctl.net/../kernel/core": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/core": "1"} },
		"linux.namespaces":                func(s *specs.Spec) { s.Linux.Namespaces = nil; s.Hostname = "" },
		"linux.uidMappings":               func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} },
		"linux.devices[0].type":           func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "x"}} },
		"linux.maskedPaths[0]":            func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"proc"} },
		"linux.cgroupsPath":               func(s *specs.Spec) { s.Linux.CgroupsPath = "system.slice:capsule:x" },
		"linux.resources.devices[0].type": func(s *specs.Spec) { s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Type: "x"}} },
		"mounts[0].options[0]": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/a", Type: "proc", Options: []string{"remount"}}}
		},
		"hostname": func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace })
		},
		"windows": func(s *specs.Spec) { s.Windows = &specs.Windows{} },
	} {
		b := newBox(t, "true")
		change(b.config)
		words := []string{field}
		if field == "linux.cgroupsPath" || field == "process.rlimits" {
			words = []string{"E2"}
		}
		if field == "linux.seccomp.listenerPath" {
			words = []string{"E2003"} // there is no compiler beside the test
		}
		b.refused(words, "create", "refused")
		if ids := b.must("list", "-q"); ids != "" || len(groups("refused")) > 0 {
			t.Errorf("%s: left %q %v", field, ids, groups("refused"))
		}
	}
}

// TestTerminal: the master goes to the socket, with ONLCR cleared, and the command has
// the other end as its controlling terminal.
func TestTerminal(t *testing.T) {
	b := newBox(t, "sh", "-c", "tty >/out/tty; stty size >/out/size; echo done >/dev/tty; cat >/dev/null")
	b.config.Process.Terminal, b.config.Process.ConsoleSize = true, &specs.Box{Height: 33, Width: 77}
	b.refused([]string{"console-socket"}, "create", "tty")
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	// The directory of a test may be longer than an address.
	dir, err := os.MkdirTemp("", "oci")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	if err := unix.Bind(s, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(s, 1); err != nil {
		t.Fatal(err)
	}
	b.must("create", "--console-socket", socket, "tty")
	c, _, err := unix.Accept(s)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(c, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	termios, err := unix.IoctlGetTermios(fds[0], unix.TCGETS)
	if err != nil || termios.Oflag&unix.ONLCR != 0 {
		t.Errorf("ONLCR is set, or %v", err)
	}
	b.must("start", "tty")
	read := make([]byte, 64)
	if n, err := master.Read(read); err != nil || string(read[:n]) != "done\n" {
		t.Errorf("the terminal shows %q %v", read[:n], err)
	}
	if got := b.out("tty") + b.out("size"); got != "/dev/pts/0\n33 77\n" {
		t.Errorf("the command sees %q", got)
	}
	b.must("delete", "--force", "tty")
}

// TestLimits: they are what the kernel says, and update changes them.
func TestLimits(t *testing.T) {
	b := newBox(t, "sh", "-c", "while :; do sleep 1; done")
	memory, pids, quota, period := int64(64<<20), int64(32), int64(50000), uint64(100000)
	b.config.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	b.config.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	b.config.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	adjust := 500
	b.config.Process.OOMScoreAdj = &adjust
	id := "limits" + strconv.Itoa(os.Getpid())
	b.must("create", id)
	read := func(names ...string) string {
		for _, dir := range groups(id) {
			for _, name := range names {
				if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
					return strings.TrimSpace(string(text))
				}
			}
		}
		return ""
	}
	if got := read("memory.limit_in_bytes", "memory.max"); got != strconv.FormatInt(memory, 10) {
		t.Errorf("memory: %s", got)
	}
	if got := read("pids.max"); got != "32" {
		t.Errorf("pids: %s", got)
	}
	if got := read("cpu.cfs_quota_us", "cpu.max"); got != "50000" && got != "50000 100000" {
		t.Errorf("cpu: %s", got)
	}
	if text, err := os.ReadFile("/proc/" + strconv.Itoa(b.state(id).Pid) + "/oom_score_adj"); err != nil || strings.TrimSpace(string(text)) != "500" {
		t.Errorf("oom_score_adj: %s %v", text, err)
	}
	b.must("update", "--pids-limit", "64", "--memory", strconv.Itoa(128<<20), id)
	if got := read("pids.max"); got != "64" {
		t.Errorf("pids after update: %s", got)
	}
	if got := read("memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(128<<20) {
		t.Errorf("memory after update: %s", got)
	}
	// What a caller knows of the configuration comes back with what is new.
	give := func(r specs.LinuxResources) string {
		text, err := json.Marshal(r)
		if err == nil {
			err = os.WriteFile(b.path("resources"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.path("resources")
	}
	pids = 48
	b.must("update", "--resources", give(specs.LinuxResources{Devices: b.config.Linux.Resources.Devices, Pids: &specs.LinuxPids{Limit: &pids}}), id)
	if got := read("pids.max"); got != "48" {
		t.Errorf("pids after the second update: %s", got)
	}
	b.refused([]string{"linux.resources.devices"}, "update", "--resources", give(specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}}), id)
}

// TestCopyUp: a tmpfs begins with what it covers, and what is written to it stays there.
func TestCopyUp(t *testing.T) {
	b := newBox(t, "sh", "-c", "cd /data && cat sub/file && readlink link && stat -c %a:%u sub sub/file . && echo new >sub/file && touch more")
	b.mkdir("rootfs/data/sub")
	if err := os.WriteFile(b.path("rootfs/data/sub/file"), []byte("text\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(b.path("rootfs/data/sub/file"), 7, 7); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/shadow", b.path("rootfs/data/link")); err != nil {
		t.Fatal(err)
	}
	b.config.Root.Readonly = true
	b.config.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_DAC_OVERRIDE"}, Effective: []string{"CAP_DAC_OVERRIDE"}, Permitted: []string{"CAP_DAC_OVERRIDE"}}
	b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"rw", "nosuid", "mode=700", "tmpcopyup"}})
	out := b.must("run", "copy")
	if out != "text\n/etc/shadow\n755:0\n640:7\n700:0\n" {
		t.Errorf("%q", out)
	}
	if text, err := os.ReadFile(b.path("rootfs/data/sub/file")); err != nil || string(text) != "text\n" {
		t.Errorf("below it: %q %v", text, err)
	}
	if err := unix.Mknod(b.path("rootfs/data/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	b.refused([]string{"E2004", "/null"}, "create", "device")
}

// TestDevices: the default ones can be used, another cannot though it can be made, and
// one that the configuration gives can.
func TestDevices(t *testing.T) {
	b := newBox(t, "sh", "-c", "head -c 1 /dev/zero >/dev/null && echo zero; mknod /out/kmsg c 1 11 && echo made; head -c 1 /out/kmsg >/dev/null 2>&1 || echo refused; ls /dev/own; stat -c %a:%u:%t:%T /dev/own")
	b.config.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_MKNOD"}, Effective: []string{"CAP_MKNOD"}, Permitted: []string{"CAP_MKNOD"}}
	mode, uid := os.FileMode(0o640), uint32(7)
	b.config.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/own", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &uid}}
	out := b.must("run", "devices")
	if out != "zero\nmade\nrefused\n/dev/own\n640:7:1:5\n" {
		t.Errorf("%q", out)
	}
}

// TestGroupInUse: two containers cannot share a control group, for deleting one kills
// what is in it.
func TestGroupInUse(t *testing.T) {
	b := newBox(t, "sh", "-c", "while :; do sleep 1; done")
	b.config.Linux.CgroupsPath = "/capsule-oci/shared" + strconv.Itoa(os.Getpid())
	b.must("create", "one")
	b.refused([]string{"linux.cgroupsPath", "has processes"}, "create", "two")
	if st := b.state("one").Status; st != specs.StateCreated {
		t.Errorf("the first is %s", st)
	}
}

// TestConcurrentCalls: one of many wins, and what it made is whole.
func TestConcurrentCalls(t *testing.T) {
	b := newBox(t, "true")
	text, err := json.Marshal(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	many := func(args ...string) (won int) {
		var mu sync.Mutex
		var wait sync.WaitGroup
		for range 6 {
			wait.Go(func() {
				if b.command(args...).Run() == nil {
					mu.Lock()
					won++
					mu.Unlock()
				}
			})
		}
		wait.Wait()
		return won
	}
	if won := many("create", "--bundle", b.dir, "one"); won != 1 {
		t.Fatalf("%d created it", won)
	}
	if won := many("start", "one"); won != 1 {
		t.Errorf("%d started it", won)
	}
	b.stops("one")
	if won := many("delete", "one"); won != 1 {
		t.Errorf("%d deleted it", won)
	}
}

// TestNamespaces: by path, and a path of another kind is refused.
func TestNamespaces(t *testing.T) {
	b := newBox(t, "sh", "-c", "while :; do sleep 1; done")
	b.must("create", "first")
	pid := strconv.Itoa(b.state("first").Pid)
	set := func(kind specs.LinuxNamespaceType, path string) {
		for i := range b.config.Linux.Namespaces {
			if n := &b.config.Linux.Namespaces[i]; n.Type == kind {
				n.Path = path
			}
		}
	}
	set(specs.NetworkNamespace, "/proc/"+pid+"/ns/ipc")
	b.refused([]string{"linux.namespaces", "another kind"}, "create", "second")
	set(specs.NetworkNamespace, "/proc/"+pid+"/ns/net")
	set(specs.IPCNamespace, "/proc/"+pid+"/ns/ipc")
	set(specs.PIDNamespace, "/proc/"+pid+"/ns/pid")
	set(specs.UTSNamespace, "/proc/"+pid+"/ns/uts")
	b.must("create", "second")
	other := strconv.Itoa(b.state("second").Pid)
	for name, same := range map[string]bool{"net": true, "ipc": true, "pid": true, "uts": true, "mnt": false, "cgroup": false} {
		one, err := os.Readlink("/proc/" + pid + "/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.Readlink("/proc/" + other + "/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if (one == two) != same {
			t.Errorf("%s: %s and %s", name, one, two)
		}
	}
	// The first is process 1 of both and ends when all others are reaped: it is our
	// part to reap the second.
	second := b.state("second").Pid
	b.must("delete", "--force", "second")
	if _, err := unix.Wait4(second, nil, 0, nil); err != nil {
		t.Error(err)
	}
}

// mapped gives the bundle a new user namespace.
func (b *box) mapped() {
	b.t.Helper()
	b.config.Linux.Namespaces = append(b.config.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 65536}}
	b.config.Linux.UIDMappings, b.config.Linux.GIDMappings = maps, maps
	for _, p := range []string{".", "rootfs", "out"} {
		if err := os.Chown(b.path(p), 300000, 300000); err != nil {
			b.t.Fatal(err)
		}
	}
	// Search permission on the way is the host's business.
	for dir := b.dir; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, st.Mode()|0o011); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// TestPodWithUserNamespace: a container of a pod has the user, network, IPC and UTS namespace
// of the pod, and mounts and processes of its own.
func TestPodWithUserNamespace(t *testing.T) {
	b := newBox(t, "sh", "-c", forever)
	b.mapped()
	b.must("create", "pod")
	pid := strconv.Itoa(b.state("pod").Pid)
	for i := range b.config.Linux.Namespaces {
		n := &b.config.Linux.Namespaces[i]
		if name, ok := map[specs.LinuxNamespaceType]string{specs.UserNamespace: "user", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts"}[n.Type]; ok {
			n.Path = "/proc/" + pid + "/ns/" + name
		}
	}
	b.config.Hostname = ""
	b.config.Linux.Namespaces = append(b.config.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.config.Process.Args = []string{"sh", "-c", `echo $$ $(cat /proc/self/uid_map) $(ls -d /proc/[0-9]*) >/out/seen.new; mv /out/seen.new /out/seen; ` + forever}
	b.must("run", "--detach", "member")
	seen := strings.Fields(b.written("seen"))
	if len(seen) < 5 || seen[0] != "1" || seen[2] != "300000" || seen[4] != "/proc/1" {
		t.Errorf("it sees %q", seen)
	}
	other := strconv.Itoa(b.state("member").Pid)
	for name, same := range map[string]bool{"user": true, "net": true, "ipc": true, "uts": true, "pid": false, "mnt": false, "cgroup": false, "time": false} {
		one, err := os.Readlink("/proc/" + pid + "/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.Readlink("/proc/" + other + "/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if (one == two) != same {
			t.Errorf("%s: %s and %s", name, one, two)
		}
	}
	out := b.must("exec", "member", "sh", "-c", "readlink /proc/self/ns/pid /proc/1/ns/pid; cat /proc/self/gid_map")
	if f := strings.Fields(out); len(f) != 5 || f[0] != f[1] || f[3] != "300000" {
		t.Errorf("a later process sees %q", out)
	}
	b.config.Process.Args = []string{"no-such-command"}
	b.refused([]string{"E3003"}, "create", "none")
	b.config.Process.Args = []string{"true"}
	b.config.Linux.Sysctl = map[string]string{"kernel.shmmax": "no number"}
	b.refused([]string{"linux.sysctl"}, "create", "none")
	b.must("delete", "--force", "member")
	// One with the processes of the pod too.
	b.config.Linux.Sysctl = nil
	for i := range b.config.Linux.Namespaces {
		if n := &b.config.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + pid + "/ns/pid"
		}
	}
	b.config.Process.Args = []string{"sh", "-c", "readlink /proc/self/ns/user; cat /proc/self/uid_map; test $$ != 1 -a -d /proc/1 && echo both"}
	user, err := os.Readlink("/proc/" + pid + "/ns/user")
	if out := b.must("run", "with"); err != nil || !strings.HasPrefix(out, user) || !strings.Contains(out, " 300000 ") || !strings.HasSuffix(out, "both\n") {
		t.Errorf("%q %v", out, err)
	}
	if ids := b.must("list", "-q"); strings.TrimSpace(ids) != "pod" {
		t.Errorf("left: %q", ids)
	}
}

// TestTimeOffsets: the clocks of a container are set before its first process is there, with a
// user namespace and without.
func TestTimeOffsets(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		b := newBox(t, "sh", "-c", "cat /proc/self/timens_offsets /proc/uptime >/out/seen")
		if mapped {
			b.mapped()
		}
		b.config.Linux.Namespaces = append(b.config.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		b.config.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 10000000, Nanosecs: 5}, "monotonic": {Secs: 7}}
		b.must("run", "clock")
		f := strings.Fields(b.out("seen"))
		if len(f) != 8 || f[1] != "7" || f[4] != "10000000" || f[5] != "5" || len(f[6]) < len("10000000.0") {
			t.Errorf("mapped %v: %q", mapped, f)
		}
		b.config.Linux.TimeOffsets["realtime"] = specs.LinuxTimeOffset{Secs: 1}
		b.refused([]string{"linux.timeOffsets.realtime"}, "create", "clock")
	}
}

// TestUserNamespace: ids are mapped, and a later process gets the same walls.
func TestUserNamespace(t *testing.T) {
	b := newBox(t, "sh", "-c", "while :; do sleep 1; done")
	b.mapped()
	b.must("create", "user")
	b.must("start", "user")
	first := "/proc/" + strconv.Itoa(b.state("user").Pid)
	out := b.must("exec", "user", "sh", "-c", "cat /proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/self/ns/mnt; grep -e NoNew -e CapBnd /proc/self/status")
	for _, name := range []string{"user", "mnt"} {
		if ns, err := os.Readlink(first + "/ns/" + name); err != nil || !strings.Contains(out, ns) {
			t.Errorf("%s is not in %s", ns, out)
		}
	}
	for _, want := range []string{"300000", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
}

// TestOtherUsersAreRefused: by name, before anything is made.
func TestOtherUsersAreRefused(t *testing.T) {
	dir, err := os.MkdirTemp("", "oci")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "--root", dir+"/state", "create", "--bundle", dir, "mine")
	cmd.Env = append(os.Environ(), actAs+"=1")
	if os.Geteuid() == 0 {
		copied := filepath.Join(dir, "capsule-oci")
		text, err := os.ReadFile(self)
		if err == nil {
			err = os.WriteFile(copied, text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args[0] = copied, copied
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "E2008") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(dir + "/state"); err == nil {
		t.Error("a state directory was made")
	}
}

// TestLaterProcess: what a later process gets from outside is there before its command:
// a limit of processes counts only itself, and the scheduler is its own.
func TestLaterProcess(t *testing.T) {
	b := newBox(t, "sh", "-c", forever)
	b.must("run", "--detach", "later")
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

// TestHostNamespaceByPath: a namespace by path may be the host's own, where nothing is set.
func TestHostNamespaceByPath(t *testing.T) {
	for _, c := range []struct {
		kind        specs.LinuxNamespaceType
		name, field string
		change      func(*specs.Spec)
	}{
		{specs.NetworkNamespace, "net", "linux.sysctl.net.ipv4.ip_forward", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "0"} }},
		{specs.IPCNamespace, "ipc", "linux.sysctl.kernel.msgmax", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.msgmax": "8192"} }},
		{specs.UTSNamespace, "uts", "hostname", func(s *specs.Spec) { s.Hostname, _ = os.Hostname() }},
	} {
		b := newBox(t, "true")
		b.config.Hostname = ""
		for i := range b.config.Linux.Namespaces {
			if n := &b.config.Linux.Namespaces[i]; n.Type == c.kind {
				n.Path = "/proc/" + strconv.Itoa(os.Getpid()) + "/ns/" + c.name
			}
		}
		b.must("run", "plain")
		c.change(b.config)
		b.refused([]string{"E2009", c.field}, "create", "refused")
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
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000); n == 0 && err == nil {
				t.Errorf("%s: %d is left", kind, pid)
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
