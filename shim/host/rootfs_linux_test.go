package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

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
