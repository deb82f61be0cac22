package stress

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// inState makes a command use another state directory.
func inState(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Env = append(cmd.Env, "CAPSULE_STATE="+dir)
	return cmd
}

func TestUnusableStateDirectory(t *testing.T) {
	top := filepath.Join(scratch(), "bad")
	if err := os.MkdirAll(top+"/real", 0o700); err != nil {
		t.Fatal(err)
	}
	make := map[string]func(path string) error{
		"link":     func(p string) error { return os.Symlink("real", p) },
		"dangling": func(p string) error { return os.Symlink("nowhere", p) },
		"wide":     func(p string) error { return mkdirMode(p, 0o755) },
		"file":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
	}
	codes := map[string]string{"link": "E5004", "dangling": "E6001", "wide": "E5004", "file": "E6001"}
	if os.Geteuid() != 0 {
		make["readonly"] = func(p string) error { return mkdirMode(p, 0o500) }
		codes["readonly"] = "E6001"
	} else {
		make["foreign"] = func(p string) error {
			if err := mkdirMode(p, 0o700); err != nil {
				return err
			}
			return os.Chown(p, 12345, 12345)
		}
		codes["foreign"] = "E5004"
	}
	for name, f := range make {
		dir := filepath.Join(top, name)
		if err := f(dir); err != nil {
			t.Fatal(err)
		}
		o := finish(t, inState(command(t, "--output", "json", "--", "true"), dir))
		if !o.is(spec.ReasonRefused, codes[name]) || o.code != 125 {
			t.Errorf("%s: want %s: %v", name, codes[name], o)
		}
	}
	if entries, err := os.ReadDir(top + "/real"); err != nil || len(entries) != 0 {
		t.Errorf("made behind the link: %v, %v", entries, err)
	}
	nothingLeft(t)
}

// mkdirMode makes a directory with a mode whatever the umask is.
func mkdirMode(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// A full state directory is an error with a code, wherever it becomes full.
func TestFullStateDirectory(t *testing.T) {
	needRoot(t, "a file system of our own")
	dir := filepath.Join(scratch(), "full")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// The first execution fills the cache of filters; the others find so many
	// pages left.
	const script = `mount -t tmpfs -o size=1m,mode=700 tmpfs "$CAPSULE_STATE" || exit 99
"$0" run -- true || exit 98
head -c 2000000 /dev/zero >"$CAPSULE_STATE/fill" 2>/dev/null
[ "$STRESS_PAGES" = 0 ] || truncate -s -"$((STRESS_PAGES * 4096))" "$CAPSULE_STATE/fill"
"$0" run --output json --max-output 10MiB -- sh -c 'head -c 300000 /dev/zero; exit 0'
status=$?
ls "$CAPSULE_STATE/executions" >&2
exit $status`
	for _, pages := range []string{"0", "1", "2", "3", "5", "8", "20"} {
		cmd := command(t)
		cmd.Path = "/bin/sh"
		cmd.Args = []string{"sh", "-c", script, binaries(t) + "/capsulectl"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		o := finish(t, inState(cmd, dir))
		t.Logf("%s pages: %.300s", pages, o)
		if o.Response == nil || o.Status != spec.StatusError || o.Error == nil || o.Error.Code == "E6005" {
			t.Errorf("%s pages: %v", pages, o)
		}
	}
	eventually(t, processes, groups, locks, mounts)
}
