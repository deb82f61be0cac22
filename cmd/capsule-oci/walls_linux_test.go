package main

import (
	"bufio"
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
		// Taken for "as it is", which is root.
		"process.user.uid":        func(s *specs.Spec) { s.Process.User.UID = 1<<32 - 1 },
		"process.user.gid":        func(s *specs.Spec) { s.Process.User.GID = 1<<32 - 1 },
		"process.args":            func(s *specs.Spec) { s.Process.Args = []string{"true", "a\x00b"} },
		"process.env":             func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} },
		"process.rlimits[0].type": func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"windows":                 func(s *specs.Spec) { s.Windows = &specs.Windows{} },
		"hooks.poststop[0].timeout": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true", Timeout: new(int)}}}
		},
		"hooks.createRuntime[1].path": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}, {Path: "true"}}}
		},
	} {
		b := newBox(t, "true")
		change(b.config)
		words := []string{field}
		if field == "linux.cgroupsPath" {
			words = []string{"E2"}
		}
		if field == "linux.seccomp.listenerPath" {
			words = []string{"E2003"} // there is no compiler beside the test
		}
		id := "refused" + strconv.Itoa(os.Getpid())
		b.refused(words, "create", id)
		if ids := b.must("list", "-q"); ids != "" || len(groups(id)) > 0 {
			t.Errorf("%s: left %q %v", field, ids, groups(id))
		}
	}
}

// TestShownTerminal: what capsule-oci itself shows on its own streams has no CR of the
// container's terminal before each LF: a terminal of ours adds one.
func TestShownTerminal(t *testing.T) {
	b := newBox(t, "echo", "done")
	b.config.Process.Terminal = true
	if out := b.must("run", "shown"); out != "done\n" {
		t.Errorf("it shows %q", out)
	}
}

// TestTerminal: the master goes to the socket, as the kernel makes it, and the command has
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
	if err != nil || termios.Oflag&unix.ONLCR == 0 {
		t.Errorf("ONLCR is cleared, or %v", err)
	}
	b.must("start", "tty")
	// A line may come in pieces: the terminal writes the word and its end one after the other.
	if line, err := bufio.NewReader(master).ReadString('\n'); err != nil || line != "done\r\n" {
		t.Errorf("the terminal shows %q %v", line, err)
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
