package doctest

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// lack skips the test, or fails it where the host should have what it lacks.
func lack(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CAPSULE_TEST_STRICT") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// house is where a test's commands run: the built programs, and a state
// directory of its own.
type house struct {
	*testing.T
	bin string
	env []string
}

func open(t *testing.T) *house {
	t.Helper()
	bin := os.Getenv("CAPSULE_BIN")
	if bin == "" {
		bin = filepath.Join(root, "bin")
	}
	bin, err := filepath.Abs(bin)
	if err == nil {
		_, err = os.Stat(filepath.Join(bin, "capsulectl"))
	}
	if err != nil {
		t.Fatalf("%v; make build makes it", err)
	}
	// Short, because sockets lie below it.
	dir, err := os.MkdirTemp("", "capsule-doc-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // payloads are to reach what is bound from it
		t.Fatal(err)
	}
	h := &house{T: t, bin: bin, env: []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "CAPSULE_STATE=" + dir + "/state",
	}}
	if out, code := h.run("", "capsulectl", "run", "-m", "256M", "--max-pids", "10", "--", "python3", "-c", "print(42)"); code == 125 || code == 127 {
		lack(t, "this host cannot run the examples: "+out)
	} else if code != 0 || !strings.Contains(out, "42\n") {
		t.Fatalf("exit %d: %s", code, out)
	}
	return h
}

// run gives what a command prints, stdout and stderr together, and its exit status.
func (h *house) run(stdin string, args ...string) (string, int) {
	h.Helper()
	return h.runIn(root, stdin, args...)
}

// runIn is run in a directory.
func (h *house) runIn(dir, stdin string, args ...string) (string, int) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program := args[0]
	if program == "capsulectl" {
		program = filepath.Join(h.bin, program)
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, h.env, strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); cmd.ProcessState == nil {
		h.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// page is one whose commands are typed.
type page struct {
	// least is how many blocks it must have.
	least int
	// apart: they are typed in a directory of their own, else at the top of the tree.
	apart bool
}

var pages = map[string]page{
	"README.md": {least: 6}, "docs/getting-started.md": {least: 9},
	"docs/bundles.md": {3, true}, "docs/configuration.md": {1, true}, "docs/seccomp.md": {2, true},
}

// untyped are pages whose commands are not typed here, and why.
var untyped = map[string]string{
	"docs/host-setup.md": "they change the host; they come from the table that doctor's tests compare with what blocks",
	"docs/operations.md": "they install and drive units of systemd; hack/debtest.sh and cmd/capsuled's tests do that in roots of their own",
}

// TestCommands types what the pages tell a reader to type. A command that fails
// on purpose is followed by || there. Blocks that begin with "sh root" are typed by
// root, where the programs of others that they use are installed.
func TestCommands(t *testing.T) {
	h := open(t)
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		p, text := pages[name], read(t, name)
		if n := len(fences(text, "sh")); n < p.least {
			t.Errorf("%s has only %d blocks of commands", name, n)
		}
		blocks := fences(text, "sh")
		if others(t) {
			blocks = fences(strings.ReplaceAll(text, "```sh root", "```sh"), "sh")
		}
		dir := root
		if p.apart {
			dir = t.TempDir()
			for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) { // runtimes and payloads pass through
				if err := os.Chmod(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, block := range blocks {
			script := strings.ReplaceAll(block, "bin/capsulectl", filepath.Join(h.bin, "capsulectl"))
			if out, code := h.runIn(dir, script, "bash", "-euo", "pipefail", "-s"); code != 0 || strings.Contains(out, "exit status 125") {
				t.Errorf("%s: exit %d of\n%s\n%s", name, code, block, out)
			} else if strings.Contains(out, "E6003") || strings.Contains(out, "internal error") {
				t.Errorf("%s: %s", name, out)
			}
		}
	}
}

// others says whether other OCI runtimes can be used here.
func others(t *testing.T) bool {
	t.Helper()
	for _, name := range []string{"runc", "crun"} {
		if _, err := exec.LookPath(name); err != nil || os.Geteuid() != 0 {
			t.Logf("commands with other runtimes are left out: they need root, and %s", name)
			return false
		}
	}
	return true
}

// TestEveryCommandIsTyped: a page with commands is typed, or says why not.
func TestEveryCommandIsTyped(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		name, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		_, typed := pages[name]
		if commands := len(fences(read(t, name), "sh")) > 0; commands != (typed || untyped[name] != "") {
			t.Errorf("%s: commands %v, typed %v: list it", name, commands, typed)
		}
	}
}
