package walls

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// setuid are attempts to leave a set-user-id file on the host, below a
// writable bind whose owner, on the host, is somebody worth being.
var setuid = map[string][]call{
	"setuid-fchmodat":  {{unix.SYS_FCHMODAT, []any{cwd, "/host/file", 0o4755}}},
	"setgid-fchmodat":  {{unix.SYS_FCHMODAT, []any{cwd, "/host/group", 0o2755}}},
	"setuid-fchmodat2": {{unix.SYS_FCHMODAT2, []any{cwd, "/host/file", 0o4755, 0}}},
	"setuid-fchmod": {{unix.SYS_OPENAT, []any{cwd, "/host/file", unix.O_RDONLY, 0}},
		{unix.SYS_FCHMOD, []any{result(0), 0o4755}}},
	"setuid-openat":  {{unix.SYS_OPENAT, []any{cwd, "/host/openat", unix.O_CREAT | unix.O_WRONLY, 0o4755}}},
	"setuid-tmpfile": {{unix.SYS_OPENAT, []any{cwd, "/host", unix.O_TMPFILE | unix.O_WRONLY, 0o4755}}},
	"setuid-openat2": {{unix.SYS_OPENAT2, []any{cwd, "/host/openat2", words(unix.O_CREAT|unix.O_WRONLY, 0o4755, 0), 24}}},
	"setuid-mknodat": {{unix.SYS_MKNODAT, []any{cwd, "/host/mknodat", unix.S_IFREG | 0o4755, 0}}},
}

// others are attempts that must fail, or that the kernel makes harmless.
var others = map[string][]call{
	"setuid-mkdirat": {{unix.SYS_MKDIRAT, []any{cwd, "/host/mkdirat", 0o6755}}},
	"setcap":         {{unix.SYS_SETXATTR, []any{"/host/file", "security.capability", words(0x0000000202000000, 0, 0)[:20], 20, 0}}},
	"chown-up":       {{unix.SYS_FCHOWNAT, []any{cwd, "/host/file", 0, 0, 0}}},
	"sticky":         {{unix.SYS_FCHMODAT, []any{cwd, "/host/sticky", 0o1777}}},
	"ordinary":       {{unix.SYS_FCHMODAT, []any{cwd, "/host/ordinary", 0o777}}},
}

// hostDirectory is a directory for a writable bind with the files that the
// attacks want.
func hostDirectory(t *testing.T) (string, func(*spec.Request)) {
	t.Helper()
	dir := idmapped(t)
	for _, name := range []string{"file", "group", "sticky", "ordinary"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	return dir, func(r *spec.Request) {
		r.Isolation.BindMounts = append(r.Isolation.BindMounts, spec.BindMount{Source: dir, Destination: "/host"})
	}
}

// raised lists what below dir changes the id of who executes it.
func raised(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			found = append(found, d.Name())
		}
		return err
	}))
	return found
}

// TestSetuidOnTheHost: files that are made below a writable bind belong to its
// owner on the host, so a set-user-id bit there would make everybody on the
// host who reaches the file that owner. Only the filter can refuse it: to the
// kernel it is the owner's right.
func TestSetuidOnTheHost(t *testing.T) {
	dir, bind := hostDirectory(t)
	b := box{}.with(bind)
	b.expect(t, "harmless", map[string]string{"setuid-mkdirat": "ok", "setcap": "EPERM", "chown-up": "EPERM or EINVAL or EOVERFLOW", "sticky": "ok", "ordinary": "ok"})
	want := map[string]string{}
	for name := range setuid {
		want[name] = "EPERM"
	}
	for name := range legacy {
		if strings.HasPrefix(name, "setuid-") {
			want[name] = "EPERM"
		}
	}
	// The filter cannot see the mode of the one, and the other is its new form;
	// C libraries fall back on what the filter sees.
	want["setuid-openat2"], want["setuid-fchmodat2"] = "ENOSYS", "ENOSYS"
	b.expect(t, "behind all walls", want)
	if found := raised(t, dir); len(found) > 0 {
		t.Errorf("left on the host: %v", found)
	}
	dir, bind = hostDirectory(t)
	box{}.with(bind, noFilter{}).expect(t, "without the filter", map[string]string{"setuid-fchmodat": "ok", "setuid-openat": "ok", "setuid-mknodat": "ok"})
	if found := raised(t, dir); len(found) < 3 {
		t.Errorf("without the filter only %v are left on the host: the attack does not work", found)
	}
}
