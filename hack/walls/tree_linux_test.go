package walls

import (
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
)

// maskedPaths and readonlyPaths are those of the bundle.
func protected(t *testing.T) (masked, readonly []string) {
	b := box{}.with(func(s *specs.Spec) { masked, readonly = s.Linux.MaskedPaths, s.Linux.ReadonlyPaths })
	b.compile(t)
	return masked, readonly
}

func TestMaskedPaths(t *testing.T) {
	paths, _ := protected(t)
	var names []string
	for _, p := range paths {
		names = append(names, "masked:"+p)
	}
	if !slices.Contains(names, "masked:/proc/kcore") {
		t.Fatal("/proc/kcore is not masked")
	}
	full := box{}.attack(t, names...)
	open := box{}.with(func(s *specs.Spec) { s.Linux.MaskedPaths = nil }).attack(t, names...)
	changed := 0
	for _, name := range names {
		if full[name] != "empty" && full[name] != "ENOENT" {
			t.Errorf("%s gives %s", name, full[name])
		}
		if open[name] != full[name] {
			changed++
		}
	}
	if changed == 0 {
		t.Errorf("without the masks nothing is different: %v", open)
	}
}

// TestReadonlyPaths: the settings of the network namespace belong to whoever
// has capabilities over it. Without them nobody writes, with them the
// read-only mount is the wall.
func TestReadonlyPaths(t *testing.T) {
	const own, global, sysrq = "sysctl:/proc/sys/net/ipv4/ip_forward", "sysctl:/proc/sys/kernel/core_pattern", "open:/proc/sysrq-trigger"
	anything := func(s *specs.Spec) { s.Linux.ReadonlyPaths = nil }
	refused := map[string]string{own: "EACCES or EROFS", global: "EACCES or EROFS", sysrq: "EACCES or EROFS or ENOENT"}
	box{}.expect(t, "behind all walls", refused)
	root := box{}.with(asUser("0"))
	root.expect(t, "as user 0", refused)
	root.with(anything).expect(t, "writable, without capabilities", map[string]string{own: "EACCES", global: "EACCES", sysrq: "EACCES or ENOENT"})
	capable := root.with(noFilter{}, withCapabilities)
	capable.expect(t, "read-only, with capabilities", map[string]string{own: "EROFS", global: "EACCES or EROFS", sysrq: "EACCES or EROFS or ENOENT"})
	// What is the host's stays out of reach even so: its owner is not mapped.
	capable.with(anything).expect(t, "without either", map[string]string{own: "ok", global: "EACCES", sysrq: "EACCES or ENOENT"})
}

// inDev is what the owner of our /dev may write: the directory of terminals, in
// which the kernel lets nobody make a file.
func inDev(user string) string {
	if user == "0" {
		return "/dev/pts"
	}
	return ""
}

func TestReadonlyRoot(t *testing.T) {
	b := box{}.with(asUser("0"))
	b.expect(t, "behind all walls", map[string]string{"create:/x": "EROFS", "create:/etc/x": "EROFS", "create:/usr/x": "EROFS", "writable": inDev("0")})
	box{}.expect(t, "as user 1000", map[string]string{"create:/x": "EROFS", "create:/usr/x": "EROFS", "writable": inDev("1000")})
	b.expect(t, "in /dev", map[string]string{"create:/dev/x": "EROFS"})
	b.with(withoutLandlock, dropping(func(s *plan.Step) bool { return s.Op == plan.OpMountSetattr && s.Path == "/dev" })).
		expect(t, "in a writable /dev", map[string]string{"create:/dev/x": "ok"})
	got := b.with(func(s *specs.Spec) { s.Root.Readonly = false }).attack(t, "create:/x", "create:/etc/x", "create:/usr/x", "writable")
	if got["create:/x"] != "ok" || got["create:/etc/x"] != "ok" || got["create:/usr/x"] != "EROFS" || !strings.HasPrefix(got["writable"], "/ ") {
		t.Errorf("with a writable root: %v", got)
	}
}

// TestReadonlyBind: a directory that the command owns, shown read-only.
func TestReadonlyBind(t *testing.T) {
	dir := idmapped(t)
	must(t, os.WriteFile(dir+"/file", nil, 0o644))
	b := box{}.with(func(r *spec.Request) {
		r.Isolation.BindMounts = append(r.Isolation.BindMounts, spec.BindMount{Source: dir, Destination: "/host", Readonly: true})
	})
	b.expect(t, "behind all walls", map[string]string{"create:/host/new": "EROFS", "open:/host/file": "EROFS", "writable": inDev("1000")})
	b = b.with(func(s *specs.Spec) {
		m := mountAt(s, "/host")
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "rro" })
	})
	b.expect(t, "without the wall", map[string]string{"create:/host/new": "ok", "open:/host/file": "ok"})
}

const devicesInside = "fd>/proc/self/fd full=c1:7 mqueue=d null=c1:3 ptmx>pts/ptmx pts=d random=c1:8 shm=d" +
	" stderr>/proc/self/fd/2 stdin>/proc/self/fd/0 stdout>/proc/self/fd/1 tty=c5:0 urandom=c1:9 zero=c1:5"

// TestDevices: nothing but the harmless ones, each of the right type and number.
func TestDevices(t *testing.T) {
	box{}.expect(t, "behind all walls", map[string]string{
		"devices": devicesInside, "open:/dev/null": "ok", "exists:/sys": "ENOENT", "exists:/boot": "ENOENT", "exists:/root": "ENOENT",
	})
	host := box{}.with(withoutMount("/dev/pts"), withoutMount("/dev/shm"), withoutMount("/dev/mqueue"), func(s *specs.Spec) {
		*mountAt(s, "/dev") = specs.Mount{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"rbind", "rnosuid"}}
		s.Linux.MaskedPaths = nil
	})
	if got := host.attack(t, "devices")["devices"]; got == devicesInside {
		t.Error("the host's devices look the same")
	}
}

// TestFilesystems: no control group, no sysfs, nothing of the kernel's but proc.
func TestFilesystems(t *testing.T) {
	bad := []string{"cgroup", "cgroup2", "sysfs", "securityfs", "debugfs", "tracefs", "bpf", "configfs", "fusectl", "binfmt_misc", "nsfs", "pstore", "efivarfs"}
	sees := func(b box) string {
		for _, fs := range strings.Fields(b.attack(t, "filesystems")["filesystems"]) {
			if slices.Contains(bad, fs) {
				return fs
			}
		}
		return ""
	}
	if fs := sees(box{}); fs != "" {
		t.Errorf("%s is mounted", fs)
	}
	sys := box{}.with(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind"}})
	})
	if sees(sys) == "" {
		t.Error("the host's /sys goes unnoticed")
	}
}

// TestConfigurationsWithoutWalls: what a bundle must have, whoever wrote it.
func TestConfigurationsWithoutWalls(t *testing.T) {
	for _, kind := range []specs.LinuxNamespaceType{"user", "mount", "pid", "ipc", "uts"} {
		var got error
		box{}.with(func(s *specs.Spec) {
			broken := *s
			linux := *s.Linux
			linux.Namespaces = slices.DeleteFunc(slices.Clone(linux.Namespaces), func(n specs.LinuxNamespace) bool { return n.Type == kind })
			broken.Linux = &linux
			_, got = plan.Compile(&broken, plan.Facts{BundleDir: "/nowhere"})
		}).compile(t)
		if got == nil || !strings.Contains(got.Error(), "lacks "+string(kind)) {
			t.Errorf("without a %s namespace: %v", kind, got)
		}
	}
}
