package walls

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/hack/walls/attack"
	"github.com/capsule-run/capsule/spec"
)

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
	for name := range attack.Setuid {
		want[name] = "EPERM"
	}
	for name := range attack.Legacy {
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
