package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// TestScripts runs a script of stdin and one of a file with each preset of --lang.
func TestScripts(t *testing.T) {
	for _, v := range []struct{ language, program, script, stdout string }{
		{"python", "python3", "import sys\nprint(6*7, sys.argv[1:])\n", "42 ['a', '-b']\n"},
		{"node", "node", "console.log(6*7, process.argv.slice(1).join())\n", "42 a,-b\n"},
		{"bash", "bash", "echo $((6*7)) \"$@\"\n", "42 a -b\n"},
	} {
		t.Run(v.language, func(t *testing.T) {
			needPrograms(t, v.program)
			c := begin(t)
			cmd := c.command("--lang", v.language, "--", "-", "a", "-b")
			cmd.Stdin = strings.NewReader(v.script)
			if o := c.finish(cmd); o.code != 0 || o.out != v.stdout {
				t.Errorf("of stdin: exit %d, stdout %q, stderr %q", o.code, o.out, o.stderr)
			}
			file := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(file, []byte(v.script), 0o644); err != nil {
				t.Fatal(err)
			}
			if o := c.finish(c.command("--lang", v.language, file, "a", "-b")); o.code != 0 || o.out != v.stdout {
				t.Errorf("of a file: exit %d, stdout %q, stderr %q", o.code, o.out, o.stderr)
			}
		})
	}
}

// TestRequestFiles runs the same request of a JSON and of a TOML file.
func TestRequestFiles(t *testing.T) {
	c := begin(t)
	for name, text := range map[string]string{
		"r.json": `{"command":["sh","-c","echo $A; exit 7"],"environment":{"A":"b"}}`,
		"r.toml": "command = ['sh', '-c', 'echo $A; exit 7']\nenvironment.A = 'b'\n",
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if o := c.finish(c.command("-f", file)); o.code != 7 || o.out != "b\n" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", name, o.code, o.out, o.stderr)
		}
	}
}

// TestReplacedSource runs commands while a file that they see is replaced again and
// again, as ldconfig does: the kernel mounts no file that has lost its name.
func TestReplacedSource(t *testing.T) {
	c := begin(t)
	dir := c.directory()
	file := filepath.Join(dir, "cache")
	c.write(dir, "cache", "whole\n")
	run := func() {
		if o := c.human("--bind", file+":/cache", "--", "cat", "/cache"); o.code != 0 || o.out != "whole\n" {
			t.Errorf("exit %d, stdout %q, stderr %q", o.code, o.out, o.stderr)
		}
	}
	const calm = 10
	began := time.Now()
	for range calm {
		run()
	}
	pause := time.Since(began) / calm // one launch in ten or so is disturbed
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(pause):
			}
			err := os.WriteFile(file+".new", []byte("whole\n"), 0o644)
			if err == nil {
				err = os.Rename(file+".new", file)
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range max(40/slow(), 10) {
		run()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestReadonlyMountStaysReadonly: what the host has mounted read-only, as a container has a
// volume, is not written through a path that a request calls writable.
func TestReadonlyMountStaysReadonly(t *testing.T) {
	if !withOwnMounts(t) {
		return
	}
	h := openHouse(t)
	me := h.pooled(0).As(uint32(os.Geteuid()))
	dir := h.directory()
	for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
		if err := unix.Mount(dir, dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	req := spec.Default()
	req.Command = []string{"touch", filepath.Join(dir, "written")}
	req.Isolation.WritablePaths = []string{dir}
	if r := h.wait(me, h.submit(me, req)); r.ExitCode == nil || *r.ExitCode != 1 || r.Stderr == nil || !strings.Contains(*r.Stderr, "Read-only file system") {
		t.Errorf("got %s", r.Encode(true))
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "written")); !os.IsNotExist(err) {
		t.Errorf("it was written: %v", err)
	}
}
