package host

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

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

// TestIDMapOfMany: of many binds each has the answer of its own mounts.
func TestIDMapOfMany(t *testing.T) {
	needRoot(t)
	dir := scratch(t)
	for _, name := range []string{"/yes", "/no", "/both", "/both/below"} {
		must(t, os.Mkdir(dir+name, 0o700))
	}
	mountOn(t, dir+"/no", "ramfs", "")
	mountOn(t, dir+"/both/below", "ramfs", "")
	r := request()
	for i := range 3 * triedEach {
		for _, in := range []string{"/yes/", "/no/"} {
			path := dir + in + strconv.Itoa(i)
			must(t, os.Mkdir(path, 0o700))
			r.Isolation.ReadonlyPaths = append(r.Isolation.ReadonlyPaths, path)
		}
		r.Isolation.ReadonlyPaths = append(r.Isolation.ReadonlyPaths, dir+"/both", dir+"/both/below", dir+"/no", dir+"/yes")
	}
	f, err := Probe(r, Options{})
	must(t, err)
	for _, b := range f.Host.Binds {
		if b.IDMap != strings.HasPrefix(b.Source, dir+"/yes") {
			t.Errorf("%s: %v", b.Source, b.IDMap)
		}
	}
	if got, want := len(f.Warnings), 3*triedEach*4; got != want {
		t.Errorf("%d warnings, not one for each of %d", got, want)
	}
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
