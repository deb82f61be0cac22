package host

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/shim/bundle"
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
	f, err := Probe(r, Options{AllowedSources: []string{"/etc/passwd"}})
	must(t, err)
	if f.Host.Binds[1].Source != "/etc/passwd" {
		t.Errorf("%+v", f.Host.Binds)
	}
}

// TestSwappedSymlink: whichever way the link points when it is read, the
// answer is the allowed directory or a refusal, never the other directory.
func TestSwappedSymlink(t *testing.T) {
	dir := scratch(t)
	must(t, os.Mkdir(dir+"/good", 0o755))
	must(t, os.Symlink(dir+"/good", dir+"/a"))
	must(t, os.Symlink("/etc", dir+"/b"))
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE)
			}
		}
	})
	defer swapper.Wait()
	defer close(stop)
	p := prober{req: request(), facts: new(Facts)}
	good, refused := 0, 0
	for i := 0; i < 20000 || ((good == 0 || refused == 0) && i < 1000000); i++ {
		s, f := p.resolve("/x", dir+"/a")
		switch {
		case f != nil && f.Code == fault.PathRefused:
			refused++
		case f != nil:
			t.Fatal(f)
		case s.path != dir+"/good":
			t.Fatalf("resolved to %s", s.path)
		default:
			good++
			unix.Close(s.fd)
		}
	}
	t.Logf("%d resolved, %d refused", good, refused)
	if good == 0 || refused == 0 {
		t.Error("the race was never met")
	}
}

// TestRemovedSource: a directory that goes away between the look at it and the
// check of its path is not taken for another of that name.
func TestRemovedSource(t *testing.T) {
	dir := scratch(t)
	must(t, os.Mkdir(dir+"/x", 0o755))
	fd, err := openPath(dir+"/x", 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.Remove(dir+"/x"))
	must(t, os.Mkdir(dir+"/y", 0o755))
	must(t, os.Mkdir(dir+"/x", 0o755))
	p := prober{req: request(), facts: new(Facts)}
	f := p.examine(&source{fd: fd}, func(c fault.Code, m string) *fault.Fault { return fault.New(c, "", m) })
	if f == nil || f.Code != fault.InvalidPath {
		t.Errorf("got %v", f)
	}
}

func TestRootfs(t *testing.T) {
	dir := scratch(t)
	for _, d := range []string{"usr", "etc", "var/tmp", "proc", "sys", "dev", "tmp", "run", "workspace", "home"} {
		must(t, os.MkdirAll(filepath.Join(dir, "r", d), 0o755))
	}
	must(t, os.Symlink("usr/bin", dir+"/r/bin"))
	must(t, os.WriteFile(dir+"/r/.dockerenv", nil, 0o644))
	must(t, unix.Mkfifo(dir+"/r/pipe", 0o600))
	must(t, os.Symlink("r", dir+"/link"))
	r := request()
	root := dir + "/link"
	r.Isolation.Rootfs = &root
	f, err := Probe(r, Options{})
	must(t, err)
	h := &f.Host
	want := []bundle.Entry{
		{Path: "/.dockerenv", Kind: bundle.RegularFile}, {Path: "/bin", Kind: bundle.Symlink, Target: "usr/bin"},
		{Path: "/etc"}, {Path: "/home"}, {Path: "/usr"}, {Path: "/var"},
	}
	if h.Rootfs != dir+"/r" || !slices.Equal(h.RootfsEntries, want) || !h.RootfsVarTmp || h.System != nil || h.Etc != nil {
		t.Errorf("%+v", h)
	}

	must(t, os.Remove(dir+"/r/var/tmp"))
	must(t, os.Symlink("/tmp", dir+"/r/var/tmp"))
	if f, err = Probe(r, Options{}); err != nil || f.Host.RootfsVarTmp {
		t.Errorf("/var/tmp through a symbolic link: %v", err)
	}
}

func TestHostileRootfsIsRefused(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev"} {
		dir := scratch(t)
		must(t, os.Symlink("/etc", filepath.Join(dir, name)))
		r := request()
		r.Isolation.Rootfs = &dir
		list := faults(t, r, Options{})
		if len(list) != 1 || list[0].Code != fault.InvalidPath || list[0].Field != rootfsField || list[0].Path != dir+"/"+name {
			t.Errorf("%s: %v", name, list)
		}
	}
	for _, root := range []string{"/", "/proc/self/root", "/missing-directory", "/usr/bin/env"} {
		r := request()
		r.Isolation.Rootfs = &root
		if list := faults(t, r, Options{}); len(list) != 1 || list[0].Field != rootfsField {
			t.Errorf("%s: %v", root, list)
		}
	}
}

// needRoot skips what only root can try.
func needRoot(t *testing.T) {
	t.Helper()
	if f, err := Probe(request(), Options{}); err != nil || f.Host.Rootless {
		t.Skip("needs root and the host's ids")
	}
}

func mountOn(t *testing.T, dir, fstype, data string) {
	t.Helper()
	must(t, unix.Mount("capsule-test", dir, fstype, unix.MS_NODEV|unix.MS_NOSUID, data))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func TestIDMap(t *testing.T) {
	needRoot(t)
	dir := scratch(t)
	must(t, os.Mkdir(dir+"/yes", 0o700))
	must(t, os.Chown(dir+"/yes", 1234, 1235))
	must(t, os.Mkdir(dir+"/no", 0o700))
	// ramfs is not prepared for idmapped mounts in any version.
	mountOn(t, dir+"/no", "ramfs", "")

	r := request()
	r.Isolation.WritablePaths = []string{dir + "/yes"}
	f, err := Probe(r, Options{})
	must(t, err)
	if b := f.Host.Binds[0]; !b.IDMap || b.OwnerUID != 1234 || b.OwnerGID != 1235 || f.Degraded != nil {
		t.Errorf("%+v", f)
	}

	r.Isolation.WritablePaths = []string{dir + "/no"}
	list := faults(t, r, Options{})
	if len(list) != 1 || list[0].Code != fault.IDMapping || list[0].Field != "/isolation/writable_paths/0" || list[0].Errno == 0 || list[0].Hint == "" {
		t.Errorf("%+v", list[0])
	}
	// A file system below the path counts too.
	r.Isolation.WritablePaths = []string{dir}
	if list := faults(t, r, Options{}); len(list) != 1 || list[0].Code != fault.IDMapping {
		t.Errorf("%v", list)
	}

	r.Isolation.WritablePaths, r.Isolation.ReadonlyPaths = nil, []string{dir + "/no"}
	checkDegraded(t, r)
	r.Isolation.WritablePaths, r.Isolation.ReadonlyPaths = []string{dir + "/no"}, nil
	r.Isolation.AllowDegraded = []string{"idmap"}
	checkDegraded(t, r)
}

func checkDegraded(t *testing.T, r *spec.Request) {
	t.Helper()
	f, err := Probe(r, Options{})
	must(t, err)
	if f.Host.Binds[0].IDMap || len(f.Warnings) != 1 || !slices.Equal(f.Degraded, []string{"idmap"}) {
		t.Errorf("%+v", f)
	}
}

// TestKernelFilesystems: a door into the kernel is refused wherever it is mounted.
func TestKernelFilesystems(t *testing.T) {
	needRoot(t)
	dir := scratch(t)
	mountOn(t, dir, "proc", "")
	r := request()
	r.Isolation.ReadonlyPaths = []string{dir, dir + "/sys/kernel"}
	for _, f := range faults(t, r, Options{}) {
		if f.Code != fault.PathRefused {
			t.Errorf("%v", f)
		}
	}
}

// TestRootless runs the probe again as an unprivileged user.
func TestRootless(t *testing.T) {
	const marker = "CAPSULE_HOST_TEST_DIR"
	if dir := os.Getenv(marker); dir != "" {
		r := request()
		r.Isolation.WritablePaths = []string{dir}
		f, err := Probe(r, Options{})
		must(t, err)
		if h := f.Host; !h.Rootless || h.UID != 65534 || h.GID != 65534 || h.Binds[0].IDMap || f.Degraded != nil {
			t.Errorf("%+v", f)
		}
		r.Isolation.WritablePaths = []string{dir + "/closed/inside"}
		if list := faults(t, r, Options{}); list[0].Code != fault.InvalidPath || list[0].Errno != unix.EACCES {
			t.Errorf("%v", list)
		}
		return
	}
	needRoot(t)
	dir, err := os.MkdirTemp("/tmp", "capsule-host-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.MkdirAll(dir+"/closed/inside", 0o700))
	must(t, os.Chmod(dir, 0o755))
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRootless$", "-test.count=1")
	cmd.Env, cmd.Dir = []string{marker + "=" + dir}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestMapsSlots(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"0 1000 1\n1 100000 65536\n":         false,
		"0 1000 1\n1 100000 4000000000\n":    true,
		"1879048192 5 268304384\n":           true,
		"1879048192 5 268304383\n":           false,
		"1879048193 5 268304384\n":           false,
		"":                                   false,
		"0 0 x\n":                            false,
		"0 0\n":                              false,
		"99999999999999999999 0 4294967295\n0 0 4294967295\n": true,
	} {
		if got := mapsSlots([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
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
