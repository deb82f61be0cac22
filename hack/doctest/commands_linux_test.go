package doctest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program := args[0]
	if program == "capsulectl" {
		program = filepath.Join(h.bin, program)
	}
	cmd := exec.CommandContext(ctx, program, args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = root, h.env, strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); cmd.ProcessState == nil {
		h.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// TestCommands types what the pages tell a newcomer to type. A command that fails
// on purpose is followed by || there.
func TestCommands(t *testing.T) {
	h := open(t)
	for page, least := range map[string]int{"README.md": 6, "docs/getting-started.md": 9} {
		blocks := fences(read(t, page), "sh")
		if len(blocks) < least {
			t.Errorf("%s has only %d blocks of commands", page, len(blocks))
		}
		for _, block := range blocks {
			script := strings.ReplaceAll(block, "bin/capsulectl", filepath.Join(h.bin, "capsulectl"))
			if out, code := h.run(script, "bash", "-euo", "pipefail", "-s"); code != 0 || strings.Contains(out, "exit status 125") {
				t.Errorf("%s: exit %d of\n%s\n%s", page, code, block, out)
			} else if strings.Contains(out, "E6003") || strings.Contains(out, "internal error") {
				t.Errorf("%s: %s", page, out)
			}
		}
	}
}
