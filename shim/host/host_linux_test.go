package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// scratch is a directory without symbolic links in its path.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func request() *spec.Request {
	r := &spec.Request{Command: []string{"true"}}
	r.Resources.MemoryBytes, r.Resources.DiskBytes, r.Resources.MaxPids = 256<<20, 64<<20, 100
	r.Isolation.User, r.Isolation.WorkingDirectory, r.Isolation.Init = "1000:1000", "/workspace", true
	return r
}

// faults gives what Probe refused, and fails the test if it refused nothing.
func faults(t *testing.T, r *spec.Request, opt Options) fault.List {
	t.Helper()
	facts, err := Probe(r, opt)
	var list fault.List
	if facts != nil || !errors.As(err, &list) {
		t.Fatalf("got %+v, %v; want faults", facts, err)
	}
	return list
}

func TestProbeThisHost(t *testing.T) {
	f, err := Probe(request(), Options{ExecutionID: "id", CgroupsPath: "/x"})
	must(t, err)
	h := &f.Host
	if h.ExecutionID != "id" || h.CgroupsPath != "/x" || h.HostMemory < 1<<20 || h.HostCPUs < 1 || h.ResolvConf != "" {
		t.Errorf("%+v", h)
	}
	if len(h.System) < 2 || h.System[0].Path != "/usr" || h.System[0].Kind != bundle.Directory {
		t.Errorf("system: %+v", h.System)
	}
	for _, e := range slices.Concat(h.System, h.Etc) {
		info, err := os.Lstat(e.Path)
		must(t, err)
		if (info.Mode()&os.ModeSymlink != 0) != (e.Kind == bundle.Symlink) || info.IsDir() != (e.Kind == bundle.Directory) || (e.Target != "") != (e.Kind == bundle.Symlink) {
			t.Errorf("%+v: %v", e, info.Mode())
		}
	}
	for _, secret := range []string{"/etc/shadow", "/etc/passwd", "/etc/ssl/private", "/etc/ssl", "/etc"} {
		if slices.ContainsFunc(h.Etc, func(e bundle.Entry) bool { return e.Path == secret }) {
			t.Errorf("%s is shown", secret)
		}
	}
	if len(f.Warnings) != 0 || len(f.Degraded) != 0 {
		t.Errorf("%+v", f)
	}
}

func TestProbeWarnsOfSmallDisk(t *testing.T) {
	r := request()
	r.Resources.DiskBytes = 1 << 30
	f, err := Probe(r, Options{})
	must(t, err)
	if len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], "disk_bytes") {
		t.Errorf("%q", f.Warnings)
	}
}

func TestBindsAreResolved(t *testing.T) {
	dir := scratch(t)
	must(t, os.MkdirAll(dir+"/real/sub", 0o755))
	must(t, os.WriteFile(dir+"/real/file", nil, 0o644))
	must(t, os.Symlink("real", dir+"/link"))
	must(t, os.Symlink(dir+"/link/sub", dir+"/far"))
	r := request()
	r.Isolation.ReadonlyPaths = []string{dir + "/far"}
	r.Isolation.WritablePaths = []string{dir + "/link"}
	r.Isolation.BindMounts = []spec.BindMount{{Source: dir + "/link/file", Destination: "/data/file", Readonly: true}}
	r.Isolation.AllowDegraded = []string{"idmap"}
	f, err := Probe(r, Options{})
	must(t, err)
	want := []bundle.Bind{
		{Field: "/isolation/readonly_paths/0", Source: dir + "/real/sub", Destination: dir + "/far", Kind: bundle.Directory, Readonly: true},
		{Field: "/isolation/writable_paths/0", Source: dir + "/real", Destination: dir + "/link", Kind: bundle.Directory},
		{Field: "/isolation/bind_mounts/0", Source: dir + "/real/file", Destination: "/data/file", Kind: bundle.RegularFile, Readonly: true},
	}
	for i := range want {
		want[i].OwnerUID, want[i].OwnerGID = uint32(os.Geteuid()), uint32(os.Getegid())
		want[i].IDMap = f.Host.Binds[i].IDMap
	}
	if !slices.Equal(f.Host.Binds, want) {
		t.Errorf("got  %+v\nwant %+v", f.Host.Binds, want)
	}
}

func TestBindsAreRefused(t *testing.T) {
	dir := scratch(t)
	state := dir + "/s/state"
	must(t, os.MkdirAll(state+"/executions", 0o700))
	must(t, os.Symlink("/etc", dir+"/to-etc"))
	must(t, os.Symlink("/", dir+"/to-root"))
	must(t, os.Symlink(dir+"/s", dir+"/to-state"))
	must(t, os.Symlink("nowhere", dir+"/dangling"))
	must(t, os.Symlink("loop", dir+"/loop"))
	must(t, os.Symlink("/proc/self/cwd", dir+"/magic"))
	must(t, os.Symlink("/dev/null", dir+"/null"))
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(sock)
	// The path of the temporary directory may be too long for a socket address.
	t.Chdir(dir)
	must(t, unix.Bind(sock, &unix.SockaddrUnix{Name: "sock"}))

	cases := []struct {
		path string
		code fault.Code
	}{
		{"/", fault.PathRefused}, {"/etc", fault.PathRefused}, {"/etc/passwd", fault.PathRefused},
		{"/proc", fault.PathRefused}, {"/proc/self/root", fault.PathRefused}, {"/proc/self/fd/0", fault.PathRefused},
		{"/sys", fault.PathRefused}, {"/dev", fault.PathRefused}, {"/dev/null", fault.PathRefused},
		{"/run", fault.PathRefused}, {"/boot", fault.PathRefused}, {"/home", fault.PathRefused}, {"/root", fault.PathRefused},
		{dir + "/to-etc", fault.PathRefused}, {dir + "/to-etc/passwd", fault.PathRefused}, {dir + "/to-root", fault.PathRefused},
		{dir + "/to-root/etc", fault.PathRefused}, {dir + "/null", fault.PathRefused},
		{state, fault.PathRefused}, {state + "/executions", fault.PathRefused}, {dir + "/s", fault.PathRefused}, {dir, fault.PathRefused},
		{dir + "/to-state", fault.PathRefused}, {dir + "/to-state/state/executions", fault.PathRefused},
		{dir + "/fifo", fault.PathRefused}, {dir + "/sock", fault.PathRefused},
		{dir + "/magic", fault.InvalidPath}, {dir + "/dangling", fault.InvalidPath}, {dir + "/loop", fault.InvalidPath},
		{dir + "/missing", fault.InvalidPath}, {"relative", fault.InvalidPath}, {"", fault.InvalidPath},
		{dir + "/" + strings.Repeat("x", 300), fault.InvalidPath},
	}
	r := request()
	for _, c := range cases {
		r.Isolation.ReadonlyPaths = append(r.Isolation.ReadonlyPaths, c.path)
	}
	list := faults(t, r, Options{StateDir: state})
	if len(list) != len(cases) {
		t.Fatalf("%d faults for %d paths: %v", len(list), len(cases), list)
	}
	for i, c := range cases {
		if list[i].Code != c.code || list[i].Path != c.path || !strings.HasPrefix(list[i].Field, "/isolation/readonly_paths/") {
			t.Errorf("%q: %v at %s, want %s", c.path, list[i], list[i].Field, c.code)
		}
	}
	// Configuration may allow what is refused by default, links to it included.
	r = request()
	r.Isolation.ReadonlyPaths = []string{"/etc/passwd", dir + "/to-etc/passwd"}
	f, err := Probe(r, Options{Policy: &shimapi.Policy{Exempt: []string{"/etc/passwd"}, Readable: []string{"/"}, Writable: []string{"/"}, Rootfs: []string{"/"}}})
	must(t, err)
	if f.Host.Binds[1].Source != "/etc/passwd" {
		t.Errorf("%+v", f.Host.Binds)
	}
}

func TestNothingLeaks(t *testing.T) {
	before := descriptors(t)
	TestBindsAreResolved(t)
	r := request()
	r.Isolation.ReadonlyPaths = []string{"/usr", "/missing", "/etc"}
	faults(t, r, Options{})
	root := "/usr"
	r.Isolation.Rootfs = &root
	faults(t, r, Options{})
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(names)
}

func BenchmarkProbe(b *testing.B) {
	r := request()
	for b.Loop() {
		if _, err := Probe(r, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProbeOneBind(b *testing.B) {
	r := request()
	r.Isolation.ReadonlyPaths = []string{"/usr/share"}
	for b.Loop() {
		if _, err := Probe(r, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
