package launch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// baseSpec is the smallest configuration that runs programs of the host.
func baseSpec(args ...string) *specs.Spec {
	skeleton, _ := json.Marshal(plan.Skeleton{Symlinks: []plan.Symlink{{Path: "/bin", Target: "usr/bin"}, {Path: "/sbin", Target: "usr/sbin"},
		{Path: "/lib", Target: "usr/lib"}, {Path: "/lib64", Target: "usr/lib64"}}, Files: []plan.File{{Path: "/etc/hostname", Content: "box\n"}}})
	s := &specs.Spec{
		Version: specs.Version, Hostname: "box",
		Root:        &specs.Root{Path: "rootfs", Readonly: true},
		Annotations: map[string]string{plan.AnnotationSkeleton: string(skeleton)},
		Process: &specs.Process{Args: args, Env: []string{"PATH=/usr/bin:/bin"}, Cwd: "/", NoNewPrivileges: true,
			User: specs.User{UID: 1000, GID: 1000}},
		Mounts: []specs.Mount{
			{Destination: "/usr", Source: "/usr", Type: "bind", Options: []string{"rbind", "rro", "nosuid", "nodev"}},
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777", "size=1m"}},
		},
		Linux: &specs.Linux{
			UIDMappings:   []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0x70000000, Size: 65536}},
			GIDMappings:   []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0x70000000, Size: 65536}},
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys"},
			ReadonlyPaths: []string{"/proc/sys"},
		},
	}
	if os.Getuid() != 0 {
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 1000, HostID: uint32(os.Getuid()), Size: 1}}
		s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 1000, HostID: uint32(os.Getgid()), Size: 1}}
	}
	for _, t := range []specs.LinuxNamespaceType{"user", "mount", "pid", "ipc", "uts", "network", "cgroup"} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t})
	}
	return s
}

func facts(t testing.TB, s *specs.Spec) plan.Facts {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/rootfs", 0o700); err != nil {
		t.Fatal(err)
	}
	f := plan.Facts{Rootless: os.Getuid() != 0, BundleDir: dir, Kinds: map[string]plan.Kind{}}
	paths := append(append([]string{}, s.Linux.MaskedPaths...), s.Linux.ReadonlyPaths...)
	for _, m := range s.Mounts {
		paths = append(paths, m.Source)
	}
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			f.Kinds[p] = plan.KindFile
			if info.IsDir() {
				f.Kinds[p] = plan.KindDir
			}
		}
	}
	return f
}

// run launches s and returns its output, wait status or fault.
func run(t testing.TB, s *specs.Spec, f plan.Facts) (string, Exit, error) {
	t.Helper()
	p, err := plan.Compile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd := int(w.Fd())
	pr, err := Prepare(p, Options{Stdin: int(null.Fd()), Stdout: fd, Stderr: fd, CgroupFD: -1})
	if err != nil {
		t.Fatal(err)
	}
	sb, err := pr.Start()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := sb.Started(); err != nil {
		sb.Abandon()
		return "", Exit{}, err
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := sb.Exited()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Reap(); err != nil {
		t.Fatal(err)
	}
	return string(out), exit, nil
}

func TestRunsACommand(t *testing.T) {
	for _, noInit := range []bool{false, true} {
		s := baseSpec("sh", "-c", "id -u; hostname; cat /etc/hostname; ls /proc/self/fd | wc -l; echo $$; exit 7")
		f := facts(t, s)
		f.NoInit = noInit
		out, exit, err := run(t, s, f)
		if err != nil {
			t.Fatal(err)
		}
		pid := "2\n"
		if noInit {
			pid = "1\n"
		}
		if want := "1000\nbox\nbox\n4\n" + pid; out != want {
			t.Errorf("noInit %v: output %q, want %q", noInit, out, want)
		}
		if exit.Status.ExitStatus() != 7 {
			t.Errorf("exit status %v, want 7", exit.Status)
		}
	}
}

func TestCommandErrors(t *testing.T) {
	for _, c := range []struct{ command, errno string }{
		{"/usr/bin/does-not-exist", "ENOENT"}, {"does-not-exist", "ENOENT"}, {"/usr", "EACCES"}, {"/etc/hostname", "EACCES"},
	} {
		s := baseSpec(c.command)
		_, _, err := run(t, s, facts(t, s))
		var f *fault.Fault
		if !errors.As(err, &f) || f.Code != fault.CommandNotFound || f.Details["errno"] != c.errno {
			t.Errorf("%s: %v, want E3003 with %s", c.command, err, c.errno)
		}
	}
}

func TestProcStatusIsBare(t *testing.T) {
	for _, uid := range []uint32{1000, 0} {
		if uid == 0 && os.Getuid() != 0 {
			continue // the only mapped id is 1000
		}
		s := baseSpec("cat", "/proc/self/status")
		s.Process.User.UID = uid
		out, _, err := run(t, s, facts(t, s))
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if !strings.Contains(out, set+":\t0000000000000000\n") {
				t.Errorf("uid %d: %s is not empty:\n%s", uid, set, out)
			}
		}
		if !strings.Contains(out, "NoNewPrivs:\t1\n") {
			t.Errorf("uid %d: new privileges are possible", uid)
		}
	}
}

func BenchmarkLaunchTrue(b *testing.B) {
	s := baseSpec("/usr/bin/true")
	f := facts(b, s)
	for b.Loop() {
		if _, _, err := run(b, s, f); err != nil {
			b.Fatal(err)
		}
	}
}
