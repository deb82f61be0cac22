package host

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec"
	"golang.org/x/sys/unix"
)

// sandbox sends a shell script the whole way, from request to kernel, without
// control groups and system call filter, and returns what it printed.
func sandbox(t *testing.T, script string, change func(*spec.Request)) string {
	t.Helper()
	r := request()
	r.Command = []string{"/bin/sh", "-c", script}
	r.Isolation.Hostname = "capsule"
	change(r)
	dir := scratch(t)
	must(t, os.Chmod(dir, 0o755))
	f, err := Probe(r, Options{StateDir: dir})
	must(t, err)
	if !f.Host.Rootless {
		base, lock, err := AllocateSlot(dir)
		must(t, err)
		defer lock.Close()
		f.Host.SlotBase = base
	}
	s, err := bundle.Build(r, f.Host)
	must(t, err)
	must(t, bundle.Write(dir, s))
	p, err := plan.Compile(s, plan.Facts{Rootless: f.Host.Rootless, BundleDir: dir, Kinds: Kinds(s), NoInit: !r.Isolation.Init})
	must(t, err)
	return start(t, p)
}

// start runs a plan and returns its output.
func start(t *testing.T, p *plan.Plan) string {
	t.Helper()
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	out := int(w.Fd())
	prepared, err := launch.Prepare(p, launch.Options{Stdin: int(null.Fd()), Stdout: out, Stderr: out, CgroupFD: -1})
	must(t, err)
	sb, err := prepared.Start()
	must(t, err)
	_, err = sb.Started()
	if err != nil {
		sb.Abandon()
		t.Fatal(err)
	}
	must(t, w.Close())
	text, err := io.ReadAll(r)
	_, exited := sb.Exited()
	_, reaped := sb.Reap()
	must(t, errors.Join(err, exited, reaped))
	return strings.TrimSpace(string(text))
}

func TestSandboxTree(t *testing.T) {
	got := sandbox(t, `id; pwd; hostname; ls -A / | tr '\n' ' '; echo
		stat -c '%a %u %g %n' /workspace /tmp /run /var/tmp /dev/shm
		touch /workspace/x /tmp/x /run/x /var/tmp/x /dev/shm/x && echo writable
		for f in /x /etc/x /usr/x /var/x; do touch $f 2>/dev/null && echo wrote $f; done
		ls -A /etc | tr '\n' ' '; echo; stat -f -c '%s*%b %c' /workspace; env | sort`, func(*spec.Request) {})
	root := " 0 0 "
	if os.Geteuid() != 0 {
		root = " 1000 1000 " // the only ids that are mapped
	}
	want := []string{
		"uid=1000(capsule) gid=1000(capsule) groups=1000(capsule)", "/workspace", "capsule",
		"700 1000 1000 /workspace", "1777" + root + "/tmp", "755 1000 1000 /run", "1777" + root + "/var/tmp", "1777" + root + "/dev/shm",
		"writable", "4096*16384 8192", "HOME=/workspace", "LANG=C.UTF-8",
	}
	for _, line := range want {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	for _, bad := range []string{"wrote", "shadow", "ssh"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q in\n%s", bad, got)
		}
	}
}

// TestSandboxBinds: a private directory of somebody is read and written as its
// owner, and the files made there are the owner's.
func TestSandboxBinds(t *testing.T) {
	dir := scratch(t)
	needRoot(t)
	for _, name := range []string{"/rw", "/ro", "/over"} {
		must(t, os.Mkdir(dir+name, 0o700))
		must(t, os.WriteFile(dir+name+"/f", []byte("content of "+name+"\n"), 0o600))
		must(t, os.Chown(dir+name, 1234, 1235))
		must(t, os.Chown(dir+name+"/f", 1234, 1235))
	}
	// Another owner than the others'.
	must(t, os.Chown(dir+"/ro", 77, 78))
	must(t, os.Chown(dir+"/ro/f", 77, 78))
	// The path of the temporary directory has parents that only root may search.
	got := sandbox(t, `cat `+dir+`/rw/f `+dir+`/ro/f /workspace/f /data/file
		echo new > `+dir+`/rw/new && stat -c '%u %g' `+dir+`/rw/new
		echo new > `+dir+`/ro/new; echo x > /data/file; echo y > /workspace/y; ls /workspace`, func(r *spec.Request) {
		r.Isolation.ReadonlyPaths = []string{dir + "/ro"}
		r.Isolation.WritablePaths = []string{dir + "/rw"}
		r.Isolation.BindMounts = []spec.BindMount{
			{Source: dir + "/over", Destination: "/workspace"},
			{Source: dir + "/over/f", Destination: "/data/file", Readonly: true},
		}
	})
	if want := "content of /rw\ncontent of /ro\ncontent of /over\ncontent of /over\n1000 1000\n"; !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Count(got, "Read-only file system") != 2 || !strings.HasSuffix(got, "f\ny") {
		t.Errorf("got\n%s", got)
	}
	var st unix.Stat_t
	must(t, unix.Stat(dir+"/rw/new", &st))
	if st.Uid != 1234 || st.Gid != 1235 {
		t.Errorf("the new file belongs to %d:%d", st.Uid, st.Gid)
	}
	if _, err := os.Stat(dir + "/ro/new"); err == nil {
		t.Error("the read-only directory was written to")
	}
}

// TestSandboxRootfs: a root made of links to the host's programs; its /etc is
// its own, and nothing of ours stands in it.
func TestSandboxRootfs(t *testing.T) {
	needRoot(t)
	root := scratch(t) + "/root"
	must(t, os.MkdirAll(root+"/etc", 0o755))
	must(t, os.MkdirAll(root+"/proc/planted", 0o755))
	must(t, os.MkdirAll(root+"/usr", 0o755))
	must(t, os.MkdirAll(root+"/var/tmp", 0o755))
	must(t, os.WriteFile(root+"/etc/mark", []byte("own etc\n"), 0o644))
	for _, e := range systemEntries() {
		if e.Kind == bundle.Symlink {
			must(t, os.Symlink(e.Target, root+e.Path))
		} else {
			must(t, os.MkdirAll(root+e.Path, 0o755))
			must(t, unix.Mount(e.Path, root+e.Path, "", unix.MS_BIND, ""))
			t.Cleanup(func() { must(t, unix.Unmount(root+e.Path, unix.MNT_DETACH)) })
		}
	}
	got := sandbox(t, `cat /etc/mark; ls /etc; ls -d /proc/planted 2>/dev/null; touch /var/tmp/x && echo ok; stat -c '%u' /etc; touch /etc/x 2>&1 | tail -c 22`, func(r *spec.Request) {
		r.Isolation.Rootfs = &root
		r.Isolation.User = "0"
	})
	// The host's programs are mounted in it, and their file system decides
	// whether the whole can be idmapped (virtiofs and overlays cannot).
	req := spec.Default()
	req.Isolation.Rootfs = &root
	facts, err := Probe(req, Options{})
	must(t, err)
	owner := "65534"
	if facts.Host.RootfsIDMap {
		owner = "0"
	}
	if want := "own etc\nmark\nok\n" + owner + "\nRead-only file system"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
