package escape

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/hack/walls/attack"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/host"
)

const (
	bare    = "Inh=0 Prm=0 Eff=0 Bnd=0 Amb=0 NoNewPrivs=1 Seccomp=2"
	minimum = "HOME=/workspace LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
	devices = "fd>/proc/self/fd full=c1:7 mqueue=d null=c1:3 ptmx>pts/ptmx pts=d random=c1:8 shm=d" +
		" stderr>/proc/self/fd/2 stdin>/proc/self/fd/0 stdout>/proc/self/fd/1 tty=c5:0 urandom=c1:9 zero=c1:5"
)

// TestPrivilegesAreGone: five empty sets, no_new_privs, the filter, whoever the
// user is and whether there is an init (runc CVE-2022-29162, crun
// CVE-2022-27650).
func TestPrivilegesAreGone(t *testing.T) {
	begin(t)
	for _, user := range []string{"1000:1000", "0:0"} {
		for _, init := range []bool{true, false} {
			expect(t, map[string]string{"caps": bare, "env": minimum, "limits": "core 0 0 nofile 1024 ok", "session": "true /workspace ok"},
				isolation("user", user), isolation("init", init))
		}
	}
	expect(t, map[string]string{"caps": strings.Replace(bare, "Seccomp=2", "Seccomp=0", 1), "setresuid": byUser("EPERM", "EINVAL"), "capset": "EPERM",
		"mount": "EPERM", "sethostname": "EPERM", "raw-ip": "EPERM", "pivot_root": "EPERM", "setns": "EPERM", "mknod": "EPERM or EACCES", "chroot": "EPERM"}, unfiltered)
	if a := run(t, request([]string{"exec:" + attacker})); a.results()["caps"] != bare {
		t.Errorf("after execve: %v", a.results())
	}
}

// TestUsers: what is asked for is what the kernel says, and nothing else is
// taken for a user (crun CVE-2026-30892).
func TestUsers(t *testing.T) {
	begin(t)
	for text, ids := range map[string]string{"0": "0 0 0 0 0 0", "0:0": "0 0 0 0 0 0", "1": "1 1 1 1 1 1", "1000:7": "1000 1000 1000 7 7 7", "65533:65533": "65533 65533 65533 65533 65533 65533"} {
		if got := run(t, request([]string{"ids"}, isolation("user", text))).results()["ids"]; !strings.HasPrefix(got, ids+" [") {
			t.Errorf("user %q runs as %q, want %q", text, got, ids)
		}
	}
	for _, text := range []string{"", "root", "+0", "-1", "0x0", " 0", "0 ", "1000:", ":1000", "4294967295", "4294967296", "65534", "65535", "99999999999999999999", "1:2:3", "٠", "1000:-1", "1e3"} {
		a := run(t, request([]string{"ids"}, isolation("user", text)))
		if a.exit != 125 || a.Error == nil || a.Error.Code != "E1001" && a.Error.Code != "E1003" {
			t.Errorf("user %q: exit %d, %+v, %s", text, a.exit, a.Error, a.out)
		}
	}
}

// TestGroupsOfTheCaller: supplementary groups of whoever started us are not the
// payload's (containerd CVE-2023-25173, docker CVE-2022-36109).
func TestGroupsOfTheCaller(t *testing.T) {
	needRoot(t, "others cannot drop groups, which give what the caller has anyway")
	begin(t)
	cmd := prepare(t, request([]string{"ids"}))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{0, 4, 6, 27, 12345}}}
	if got := finish(t, cmd).results()["ids"]; got != "1000 1000 1000 1000 1000 1000 []ok" {
		t.Errorf("ids %s", got)
	}
}

// TestEnvironmentOfTheCaller is not the payload's.
func TestEnvironmentOfTheCaller(t *testing.T) {
	begin(t)
	cmd := prepare(t, request([]string{"env"}))
	cmd.Env = append(cmd.Env, "AWS_SECRET_ACCESS_KEY=of-the-host", "LD_PRELOAD=/nowhere", "BASH_ENV=/nowhere")
	if got := finish(t, cmd).results()["env"]; got != minimum {
		t.Errorf("env %s", got)
	}
}

// TestNamespacesAreOwn: none of the host's, and the name in one of them is ours.
func TestNamespacesAreOwn(t *testing.T) {
	begin(t)
	got := run(t, request([]string{"namespaces", "hostname"})).results()
	inside := strings.Fields(got["namespaces"])
	have := 0
	for _, name := range attack.NamespaceNames {
		own, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			continue // this kernel has none of that kind
		}
		have++
		if slices.Contains(inside, own) {
			t.Errorf("%s is the host's", own)
		}
	}
	if len(inside) != have || got["hostname"] != "capsule" {
		t.Errorf("%v", got)
	}
}

// TestIDMap: the ids are the sandbox's own, and of no other at the same time.
func TestIDMap(t *testing.T) {
	begin(t)
	h := hold(t, []string{"read:/proc/self/uid_map"})
	first := strings.SplitN(h.lines.String(), "\n", 2)[0]
	second := "read:/proc/self/uid_map " + run(t, request([]string{"read:/proc/self/uid_map"})).results()["read:/proc/self/uid_map"]
	h.end()
	if rootless() {
		if fields := strings.Fields(first); len(fields) != 4 || fields[2] != fmt.Sprint(os.Geteuid()) || fields[3] != "1" {
			t.Errorf("%s", first)
		}
		return
	}
	for _, line := range []string{first, second} {
		if fields := strings.Fields(line); len(fields) != 4 || fields[1] != "0" || len(fields[2]) < 9 || fields[3] != "65536" {
			t.Errorf("%s", line)
		}
	}
	if strings.Fields(first)[2] == strings.Fields(second)[2] {
		t.Errorf("two sandboxes have the same host ids: %s", first)
	}
}

// TestTheTree: what is mounted how, which devices there are, what is covered
// (runc CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
func TestTheTree(t *testing.T) {
	begin(t)
	want := map[string]string{
		"devices": devices, "statfs:/": "ro,nosuid,nodev", "statfs:/usr": "ro,nosuid,nodev", "statfs:/proc": "nosuid,nodev,noexec", "statfs:/dev": "ro,nosuid,noexec",
		"statfs:/dev/shm": "nosuid,nodev,noexec", "statfs:/dev/mqueue": "nosuid,nodev,noexec", "statfs:/dev/pts": "nosuid,noexec",
		"statfs:/tmp": "nosuid,nodev", "statfs:/workspace": "nosuid,nodev", "statfs:/run": "nosuid,nodev", "statfs:/var/tmp": "nosuid,nodev",
		"statfs:/proc/sys": "ro,nosuid,nodev,noexec", "statfs:/proc/bus": "ro,nosuid,nodev,noexec or ENOENT", "statfs:/proc/irq": "ro,nosuid,nodev,noexec or ENOENT",
		"statfs:/proc/fs": "ro,nosuid,nodev,noexec or ENOENT", "statfs:/proc/sysrq-trigger": "ro,nosuid,nodev,noexec or ENOENT",
		"open:/proc/sys/kernel/core_pattern": "EACCES or EROFS", "open:/proc/sysrq-trigger": "EACCES or EROFS or ENOENT", "open:/proc/sys/kernel/modprobe": "EACCES or EROFS or ENOENT",
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/scsi", "/proc/interrupts", "/proc/asound", "/proc/latency_stats", "/proc/sched_debug"} {
		want["masked:"+path] = "empty or ENOENT"
	}
	for _, user := range []string{"1000:1000", "0:0"} {
		expect(t, want, isolation("user", user))
	}
}

// TestProtectedPathsStayUncreatable: a file that is looked for later and does not
// exist yet cannot be made from inside (Claude Code CVE-2026-25725).
func TestProtectedPathsStayUncreatable(t *testing.T) {
	begin(t)
	want := map[string]string{}
	for _, path := range []string{"/x", "/etc/x", "/etc/ld.so.preload", "/etc/passwd-", "/usr/x", "/usr/bin/x", "/usr/local/bin/x", "/dev/x", "/root", "/home", "/var/x", "/etc/profile.d"} {
		want["create:"+path] = "EROFS"
	}
	want["create:/lib/x"], want["create:/bin/x"], want["create:/proc/x"] = "EROFS or EACCES", "EROFS or EACCES", "ENOENT"
	want["open:/etc/passwd"], want["truncate:/etc/passwd"], want["open:/etc/resolv.conf"] = "EROFS", "EROFS", "EROFS or ENOENT"
	for _, dir := range []string{"/", "/etc", "/usr", "/workspace"} {
		expect(t, want, isolation("user", "0:0"), isolation("working_directory", dir))
	}
}

// TestWorkingDirectoryWidensNothing (Codex CVE-2025-59532).
func TestWorkingDirectoryWidensNothing(t *testing.T) {
	secret := scratch(t)
	must(t, os.WriteFile(secret+"/secret", nil, 0o666))
	begin(t, secret)
	reference := run(t, request([]string{"writable", "filesystems"})).results()
	for _, dir := range []string{"/", "/usr", "/etc", "/tmp", "/run", "/var/tmp"} {
		got := run(t, request([]string{"writable", "filesystems"}, isolation("working_directory", dir))).results()
		if len(got) != 2 || got["writable"] != reference["writable"] || got["filesystems"] != reference["filesystems"] {
			t.Errorf("in %s: %v instead of %v", dir, got, reference)
		}
	}
	for _, dir := range []string{"/root", "/home", secret, "/sys", "/boot", "/nowhere"} {
		refused(t, dir, request([]string{"session"}, isolation("working_directory", dir)), "E1006", "ENOENT")
	}
	if !slices.Contains([]string{"/dev/pts", ""}, reference["writable"]) {
		t.Errorf("writable: %s", reference["writable"])
	}
}

// TestEmptyMeansNothing: nil, empty and missing all deny (srt CVE-2025-66479).
func TestEmptyMeansNothing(t *testing.T) {
	begin(t)
	for _, value := range []any{[]string{}, nil} {
		for _, list := range []string{"readonly_paths", "writable_paths", "allow_degraded"} {
			a := run(t, request([]string{"exists:/root", "exists:/home", "caps"}, isolation(list, value)))
			if a.exit != 125 && (a.results()["exists:/root"] != "ENOENT" || a.results()["exists:/home"] != "ENOENT" || a.results()["caps"] != bare) {
				t.Errorf("%s: %v: %v", list, value, a.results())
			}
		}
	}
	for why, change := range map[string]func(object){
		"an empty profile name": isolation("seccomp", ""), "an unknown profile": isolation("seccomp", "none"),
		"an object without default": isolation("seccomp", object{}), "an unknown wall": isolation("allow_degraded", []string{"everything"}),
		"an unknown field": isolation("privileged", true), "an unknown backend": isolation("backend", "none"), "an empty path": isolation("readonly_paths", []string{""}),
		"an empty command": field("command", []string{}), "no command": field("command", nil), "an empty root": isolation("rootfs", ""),
		"null for user": isolation("user", nil), "process backend": isolation("backend", "process"),
	} {
		if a := run(t, request([]string{"caps"}, change)); a.exit != 125 && a.results()["caps"] != bare {
			t.Errorf("%s: exit %d, %v", why, a.exit, a.results())
		} else if a.exit != 125 && !strings.HasPrefix(why, "null") {
			t.Errorf("%s is accepted", why)
		}
	}
	free := prepare(t, request([]string{"caps"}, isolation("seccomp", "unconfined")))
	free.Env = free.Env[:3] // without the policy that allows it
	if a := finish(t, free); a.exit != 125 || a.Error == nil || a.Error.Code != "E5004" {
		t.Errorf("no filter: exit %d, %+v", a.exit, a.Error)
	}
	// A list that is empty allows no system call: even execve's program dies.
	a := run(t, request([]string{"caps"}, isolation("seccomp", object{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []any{}})))
	if a.exit == 0 || strings.Contains(a.out, "caps") {
		t.Errorf("an empty list of calls: exit %d, %s", a.exit, a.out)
	}
}

// hidden tells whether /proc hides process 1. It does, unless the walls behind
// that are tried one by one, which nobody could see else.
func hidden() bool {
	missing := os.Getenv("CAPSULE_ESCAPE_BREACH")
	return missing != "init_ids" && missing != "init_dumpable"
}

// TestInitOutOfReach: pid 1 and its verdict (seen in the ancestor).
func TestInitOutOfReach(t *testing.T) {
	begin(t)
	// The ids are the same for others than root; then Landlock forbids it, where
	// it knows signals, and without it the kernel delivers none of them.
	signals := byUser("EPERM", "ok")
	if host.Landlock() >= plan.LandlockWhole {
		signals = "EPERM"
	}
	refusals := map[string]string{"init-files": "", "links": "", "identity:1": "ENOENT", "processes": "", "owner:/proc/1/mem": "ENOENT", "signal:1": signals, "term-init": signals, "kill-init": signals, "stop-init": signals, "ptrace-init": "EPERM", "readv-init": "EPERM", "writev-init": "EPERM", "pidfd-init": "step 1 EPERM or EPERM", "kill-all": "ESRCH or EPERM or ok"}
	if !hidden() {
		refusals["identity:1"], refusals["processes"], refusals["owner:/proc/1/mem"] = "65535 65535 65535 65535 65535 65535 65535 65535", "1", "65534:65534"
		if rootless() {
			delete(refusals, "identity:1")
		}
	}
	for _, user := range []string{"1000:1000", "0:0"} {
		expect(t, refusals, isolation("user", user))
		expect(t, map[string]string{"ptrace-init": "EPERM", "readv-init": "EPERM", "writev-init": "EPERM", "pidfd-init": "EPERM"}, isolation("user", user), unfiltered)
	}
}

// TestLandlockHolds: what only the rules about files, signals and sockets stand
// before: mounts in a nested namespace behind a filter that allows everything,
// and the host's abstract sockets for who asked for its network.
func TestLandlockHolds(t *testing.T) {
	if host.Landlock() < plan.LandlockLeast {
		t.Skip("needs a kernel with Landlock")
	}
	begin(t)
	expect(t, map[string]string{"nested": "EPERM", "unshare-user": "ok"}, unfiltered)
	if host.Landlock() < plan.LandlockWhole {
		return
	}
	name := fmt.Sprint("capsule-escape-landlock-", os.Getpid())
	abstract, err := net.Listen("unix", "@"+name)
	must(t, err)
	defer abstract.Close()
	expect(t, map[string]string{"abstract:" + name: "EPERM"}, isolation("network", true))
	a := run(t, request([]string{"landlocked"}, isolation("require", []string{"landlock"})))
	if a.Enforcement == nil || a.Enforcement.Walls["landlock"] != "enforced" {
		t.Errorf("enforcement %+v", a.Enforcement)
	}
}

// TestKeysOfTheHost: the session keyring is empty, whatever the filter says.
func TestKeysOfTheHost(t *testing.T) {
	// A session keyring is the thread's, and so is what its children inherit.
	runtime.LockOSThread()
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		t.Skip("needs a kernel with keys")
	}
	_, err := unix.AddKey("user", "capsule-escape", []byte("of the host"), unix.KEY_SPEC_SESSION_KEYRING)
	must(t, err)
	begin(t)
	expect(t, map[string]string{"key:capsule-escape": "EPERM", "keyctl": "EPERM", "add_key": "EPERM", "request_key": "EPERM", "masked:/proc/keys": "empty or ENOENT"})
	expect(t, map[string]string{"key:capsule-escape": "ENOKEY or EACCES or EPERM"}, unfiltered)
}

// TestSetuidFiles: no bit on a file raises anybody, inside or on the host.
func TestSetuidFiles(t *testing.T) {
	dir := scratch(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o644))
	must(t, os.WriteFile(dir+"/group", nil, 0o644))
	begin(t)
	expect(t, map[string]string{"setuid-fchmodat": "EPERM", "setgid-fchmodat": "EPERM", "setuid-openat": "EPERM", "setuid-mknodat": "EPERM", "setuid-fchmodat2": "ENOSYS",
		"setcap": "EPERM", "statfs:/host": "nosuid,nodev"}, bind(dir, "/host", false))
	for _, name := range []string{"file", "group"} {
		if info, err := os.Stat(dir + "/" + name); err != nil || info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			t.Errorf("%v %v", info, err)
		}
	}
}

// TestDeviceFiles: a device that somebody left in a directory opens for nobody.
func TestDeviceFiles(t *testing.T) {
	needRoot(t, "others make no devices")
	dir := scratch(t)
	must(t, unix.Mknod(dir+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
	must(t, os.Chmod(dir+"/zero", 0o666))
	begin(t, dir)
	expect(t, map[string]string{"open:/host/zero": "EACCES", "masked:/host/zero": "EACCES"}, bind(dir, "/host", true))
}

// TestOwnersOnTheHost: what is made below a writable bind belongs to its owner.
func TestOwnersOnTheHost(t *testing.T) {
	dir := scratch(t)
	begin(t)
	expect(t, map[string]string{"create:/host/made": "ok", "owner:/host": "1000:1000", "chown-up": "ENOENT or EPERM or EINVAL or EOVERFLOW"}, bind(dir, "/host", false))
	var st unix.Stat_t
	must(t, unix.Stat(dir+"/made", &st))
	if int(st.Uid) != os.Geteuid() {
		t.Errorf("made belongs to %d", st.Uid)
	}
}
