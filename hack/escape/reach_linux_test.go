package escape

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// TestOwnProgramsOutOfReach: no link in /proc leads to a program of ours, none
// is mapped, mounted or named (runc CVE-2019-5736).
func TestOwnProgramsOutOfReach(t *testing.T) {
	begin(t)
	bin, err := programs()
	must(t, err)
	owner := "ENOENT"
	if !hidden() {
		owner = "65534:65534"
	}
	for _, user := range []string{"1000:1000", "0:0"} {
		expect(t, map[string]string{"exes": attacker, "links": "", "self:" + bin: "", "owner:/proc/1/exe": owner, "init-files": ""},
			isolation("user", user))
		expect(t, map[string]string{"links": "", "init-files": ""}, isolation("user", user), unfiltered)
	}
	for _, init := range []bool{true, false} {
		a := run(t, request(nil, field("command", []string{"/proc/self/exe"}), field("stdin", "{}"), isolation("init", init)))
		if a.exit == 0 || a.out != "" {
			t.Errorf("init %v: /proc/self/exe as command: exit %d, %q, %+v", init, a.exit, a.out, a.Error)
		}
	}
}

// TestDescriptorsAreClosed: 0, 1 and 2 alone arrive, and no working directory
// or command leads through another (runc CVE-2024-21626).
func TestDescriptorsAreClosed(t *testing.T) {
	begin(t)
	expect(t, map[string]string{"fds": "0 1 2", "session": "true /workspace ok"})
	dir := scratch(t)
	for fd := range 65 {
		must(t, os.Symlink(fmt.Sprint("/proc/self/fd/", fd), fmt.Sprint(dir, "/", fd)))
	}
	for i, target := range []string{"/proc/self/cwd", "/proc/self/root", "/proc/thread-self/cwd", "/proc/self/exe"} {
		must(t, os.Symlink(target, fmt.Sprint(dir, "/link", i)))
	}
	for _, init := range []bool{true, false} {
		// What is still open is what failures are reported on, the lock of the host
		// ids, and the ruleset that the command enters later.
		open := 0
		try := func(name string) string {
			a := run(t, request([]string{"session"}, bind(dir, "/links", true), isolation("working_directory", "/links/"+name), isolation("init", init)))
			if a.exit != 125 || a.Error == nil || a.Error.Code != "E1006" {
				t.Fatalf("%s: exit %d, %+v\n%s", name, a.exit, a.Error, a.out)
			}
			errno, _ := a.Error.Details["errno"].(string)
			return errno
		}
		// Each number is tried in a sandbox of its own, and they do not have the same open
		// under the same: what is open too much is so in every count.
		for counts := 0; counts == 0 || open > 3 && counts < 5; counts++ {
			open = 0
			for fd := 3; fd < min(65, 3+rounds(10)); fd++ {
				switch errno := try(fmt.Sprint(fd)); errno {
				case "ENOENT":
				case "ELOOP":
					open++
				default:
					t.Errorf("descriptor %d: %s", fd, errno)
				}
			}
		}
		if open > 3 {
			t.Errorf("init %v: %d descriptors are open when paths are resolved", init, open)
		}
		for _, name := range []string{"0", "1", "link0", "link1", "link2", "link3"} {
			if errno := try(name); errno != "ELOOP" {
				t.Errorf("%s: %s", name, errno)
			}
		}
		for _, dir := range []string{"/proc/self/fd/7", "/proc/self/cwd", "/proc/1/root", "/dev/fd/0", "/sys/fs/cgroup/..", "/workspace/../.."} {
			refused(t, dir, request([]string{"session"}, isolation("working_directory", dir), isolation("init", init)), "E1006", "")
		}
	}
}

// TestTheOldRootIsGone: nothing of the host's tree is above or below.
func TestTheOldRootIsGone(t *testing.T) {
	begin(t)
	secret := scratch(t)
	must(t, os.WriteFile(secret+"/secret", []byte("of the host"), 0o666))
	expect(t, map[string]string{"above": "nothing", "exists:/../../.." + secret: "ENOENT", "exists:" + secret: "ENOENT", "exists:/root": "ENOENT",
		"exists:/home": "ENOENT", "exists:/sys": "ENOENT", "exists:/boot": "ENOENT", "exists:/etc/shadow": "ENOENT", "read:/etc/hostname": "capsule",
		"exists:/var/lib": "ENOENT", "exists:/run/capsule": "ENOENT", "exists:/proc/1/root/etc": "ENOENT or EACCES"})
}

// TestControlGroupsAreHidden: no tree of control groups, and the namespace
// shows no path of the host's (runc CVE-2023-25809, kernel CVE-2022-0492).
func TestControlGroupsAreHidden(t *testing.T) {
	begin(t)
	got := run(t, request([]string{"filesystems", "read:/proc/self/cgroup", "exists:/sys/fs/cgroup", "mount", "unshare-cgroup"})).results()
	for _, fs := range strings.Fields(got["filesystems"]) {
		if strings.HasPrefix(fs, "cgroup") || fs == "sysfs" || fs == "securityfs" || fs == "debugfs" {
			t.Errorf("%s is mounted", fs)
		}
	}
	for _, group := range strings.Split(got["read:/proc/self/cgroup"], "|") {
		if i := strings.LastIndexByte(group, ':'); group[i+1:] != "/" && !strings.HasPrefix(group[i+1:], "/..") || strings.Contains(group, "capsule") {
			t.Errorf("a control group of the host: %s", group)
		}
	}
	if got["exists:/sys/fs/cgroup"] != "ENOENT" || got["mount"] != "EPERM" || got["unshare-cgroup"] != "EPERM" {
		t.Errorf("%v", got)
	}
}

// TestTerminalStaysOurs pushes keys into the terminal that capsulectl has
// (bubblewrap CVE-2017-5226): it is not handed in, and the session is another.
func TestTerminalStaysOurs(t *testing.T) {
	begin(t)
	expect(t, map[string]string{"tty": "ENXIO", "tty-of:0": "ENOTTY", "tty-of:1": "ENOTTY", "tty-of:2": "ENOTTY",
		"push:0": "EPERM EPERM EPERM EPERM", "push:1": "EPERM EPERM EPERM EPERM", "session": "true /workspace ok",
		"tiocsti": "EPERM", "tiocsti-high": "EPERM", "tioclinux": "EPERM", "tiocsetd": "EPERM"})
	expect(t, map[string]string{"tty": "ENXIO", "push:0": "ENOTTY ENOTTY ENOTTY ENOTTY"}, unfiltered)
	master, slave := terminal(t)
	defer master.Close()
	cmd := prepare(t, request([]string{"tty", "tty-of:0", "tty-of:1", "tty-of:2", "push:0", "push:2"}, unfiltered))
	onTerminal(cmd, slave)
	got := finish(t, cmd).results()
	slave.Close()
	for name, want := range map[string]string{"tty": "ENXIO", "tty-of:0": "ENOTTY", "tty-of:1": "ENOTTY", "tty-of:2": "ENOTTY"} {
		if got[name] != want {
			t.Errorf("on a terminal %s gives %q, want %q", name, got[name], want)
		}
	}
}

// TestSocketsOfTheHost connects to whatever there is (containerd
// CVE-2020-15257).
func TestSocketsOfTheHost(t *testing.T) {
	begin(t)
	name := fmt.Sprint("capsule-escape-", os.Getpid())
	abstract, err := net.Listen("unix", "@"+name)
	must(t, err)
	defer abstract.Close()
	dir := scratch(t)
	socket, err := net.Listen("unix", dir+"/socket")
	must(t, err)
	defer socket.Close()
	must(t, os.Chmod(dir+"/socket", 0o777))
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer tcp.Close()
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	must(t, err)
	expect(t, map[string]string{"abstract:" + name: "ECONNREFUSED", "tcp:" + port: "ECONNREFUSED", "connect:/": "", "vsock": "EAFNOSUPPORT",
		"netlink": "EAFNOSUPPORT", "packet": "EAFNOSUPPORT"})
	refused(t, "a socket as source", request(nil, bind(dir+"/socket", "/socket", true)), "E5002", "")
}

// TestStateIsPrivate: nobody else reads what capsule writes while it runs
// (containerd CVE-2024-25621, docker CVE-2021-41091).
func TestStateIsPrivate(t *testing.T) {
	begin(t)
	h := hold(t, nil)
	seen := 0
	look := func(path string, d os.DirEntry, err error) error {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			return nil // it comes and goes
		}
		seen++
		if int(st.Uid) != os.Geteuid() {
			t.Errorf("%s belongs to %d", path, st.Uid)
		}
		if d.IsDir() && st.Mode&0o077 != 0 {
			t.Errorf("%s has mode %o", path, st.Mode&0o7777)
		}
		return nil
	}
	// The shim writes beside the command.
	for end := time.Now().Add(patient(10 * time.Second)); seen < 8 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		seen = 0
		must(t, filepath.WalkDir(stateDir(), look))
	}
	if seen < 8 {
		t.Errorf("only %d files were seen", seen)
	}
	h.end()
}

// TestHostPathsAreRefused: what a request may not show, by name and by what it
// leads to (go-judge, Judge0 CVE-2024-28185, docker cp).
func TestHostPathsAreRefused(t *testing.T) {
	dir := scratch(t)
	must(t, unix.Mkfifo(dir+"/fifo", 0o666))
	must(t, os.Mkdir(dir+"/real", 0o755))
	for name, target := range map[string]string{"etc": "/etc", "shadow": "/etc/shadow", "proc": "/proc", "self": "/proc/self/root", "fd": "/proc/self/fd/3",
		"null": "/dev/null", "state": stateDir(), "root": "/", "sys": "/sys/kernel", "chain": "etc"} {
		must(t, os.Symlink(target, dir+"/"+name))
	}
	must(t, os.MkdirAll(stateDir(), 0o700))
	begin(t, dir)
	for _, c := range []struct{ source, code string }{
		{"/", "E5002"}, {"/etc", "E5002"}, {"/etc/passwd", "E5002"}, {"/proc", "E5002"}, {"/proc/self/root", "E5002"}, {"/sys", "E5002"}, {"/dev", "E5002"},
		{"/dev/null", "E5002"}, {"/run", "E5002"}, {"/boot", "E5002"}, {"/root", "E5002"}, {"/home", "E5002"}, {stateDir(), "E5002"}, {stateDir() + "/executions", "E5002"},
		{scratchDir(), "E5002"}, {dir + "/fifo", "E5002"}, {dir + "/etc", "E5002"}, {dir + "/shadow", "E5002"}, {dir + "/proc", "E5002"}, {dir + "/root", "E5002"},
		{dir + "/sys", "E5002"}, {dir + "/null", "E5002"}, {dir + "/state", "E5002"}, {dir + "/chain", "E5002"}, {dir + "/self", "E1006"}, {dir + "/fd", "E1006"},
		{dir + "/none", "E1006"}, {dir + "/real/", "E1006"}, {dir + "/../etc", "E1006"}, {"//etc", "E1006"}, {"etc", "E1006"}, {dir + "/real/\x00", "E1001"},
	} {
		refused(t, "source "+c.source, request(nil, bind(c.source, "/shown", true)), c.code, "")
	}
	for _, source := range []string{"/etc", dir + "/etc"} {
		refused(t, "readonly_paths", request(nil, isolation("readonly_paths", []string{source})), "E5002", "")
		refused(t, "writable_paths", request(nil, isolation("writable_paths", []string{source})), "E5002", "")
		refused(t, "rootfs", request(nil, isolation("rootfs", source)), "E5002", "")
	}
}

// TestKernelFilesystemsAreRefused: a proc that is mounted elsewhere is still one.
func TestKernelFilesystemsAreRefused(t *testing.T) {
	begin(t)
	for _, path := range kernelMounts(t) {
		refused(t, path, request(nil, bind(path, "/shown", true)), "E5002", "")
	}
}

// TestKernelFilesystemsByAnyName: a proc that root mounted in an ordinary
// directory, in a mount namespace of this test's own.
func TestKernelFilesystemsByAnyName(t *testing.T) {
	needRoot(t, "others mount nothing")
	dir := scratch(t)
	begin(t, dir)
	cmd := prepare(t, request([]string{"read:/shown/1/environ"}, bind(dir, "/shown", true)))
	args := append([]string{"/bin/sh", "-c", `mount -t proc proc "$0" && exec "$@"`, dir}, cmd.Args...)
	cmd.Path, cmd.Args = args[0], args
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if a := finish(t, cmd); a.exit != 125 || a.Error == nil || a.Error.Code != "E5002" {
		t.Errorf("exit %d, %+v\n%s", a.exit, a.Error, a.out)
	}
}

// kernelMounts are directories of kernel file systems whose names say nothing.
func kernelMounts(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	paths := []string{"/sys/fs/cgroup"}
	for line := range strings.Lines(string(text)) {
		head, tail, _ := strings.Cut(line, " - ")
		point := strings.Fields(head)[4]
		switch strings.Fields(tail)[0] {
		case "proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "bpf", "securityfs":
			paths = append(paths, point)
		}
	}
	return paths
}

// TestDestinationsAreChecked: names that join past the root, and binds whose
// content must survive the clean-up (seen in the ancestor of this design).
func TestDestinationsAreChecked(t *testing.T) {
	dir := scratch(t)
	must(t, os.WriteFile(dir+"/precious", []byte("of the host"), 0o644))
	begin(t, dir)
	for _, destination := range []string{"//etc/x", "/a/../b", "/a/./b", "/a/", "relative", "", "/", "/proc/x", "/proc", "/dev", "/dev/null", "/sys/fs", "/a\x00b",
		strings.Repeat("/a", 3000)} {
		a := run(t, request(nil, bind(dir, destination, true)))
		if a.exit != 125 || a.Error == nil || !slices.Contains([]string{"E1001", "E1002", "E1003", "E1006"}, a.Error.Code) {
			t.Errorf("destination %.40q: exit %d, %+v", destination, a.exit, a.Error)
		}
	}
	for _, readonly := range []bool{true, false} {
		expect(t, map[string]string{"read:/data/precious": "of the host"}, bind(dir, "/data", readonly), isolation("allow_degraded", []string{spec.WallIDMap}))
	}
	expect(t, map[string]string{"create:/data/x": "EROFS", "truncate:/data/precious": "EROFS", "open:/data/precious": "EROFS", "statfs:/data": "ro,nosuid,nodev"},
		bind(dir, "/data", true), isolation("user", "0:0"))
}
