package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// TestKubeIsAProgramBeside: capsulectl kube becomes the capsule-kube that stands beside it,
// else that of PATH, with its arguments, its streams and its exit status. Without one it says
// what is missing.
func TestKubeIsAProgramBeside(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	own, path := t.TempDir(), t.TempDir()
	if out, err := exec.Command("cp", filepath.Join(bin, "capsulectl"), own).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	script := func(dir, name string) {
		t.Helper()
		text := "#!/bin/sh\necho \"" + name + ": $*: $(cat)\"\necho told >&2\nexit 7\n"
		if err := os.WriteFile(filepath.Join(dir, "capsule-kube"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "capsule-kube"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	call := func(env string, args ...string) (out, errs string, status int) {
		t.Helper()
		cmd := exec.Command(filepath.Join(own, "capsulectl"), args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("request"), &stdout, &stderr
		cmd.Env = []string{env, "HOME=" + own}
		var failed *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &failed) {
			t.Fatal(err)
		}
		return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
	}
	out, errs, status := call("PATH="+path, "kube", "run", "-v")
	if status != spec.ExitRefused || out != "" || !strings.Contains(errs, "E2008") || !strings.Contains(errs, "Install capsule-kube beside capsulectl or on PATH.") {
		t.Errorf("without the program: exit %d, %q, %q", status, out, errs)
	}
	const usual = "PATH=/usr/bin:/bin"
	script(path, "of PATH")
	if out, errs, status := call(usual+":"+path, "kube", "run", "-v"); status != 7 || out != "of PATH: run -v: request\n" || errs != "told\n" {
		t.Errorf("on PATH: exit %d, %q, %q", status, out, errs)
	}
	script(own, "beside")
	if out, errs, status := call(usual+":"+path, "kube", "run", "--image", "a b"); status != 7 || out != "beside: run --image a b: request\n" || errs != "told\n" {
		t.Errorf("beside it: exit %d, %q, %q", status, out, errs)
	}
	if out, _, status := call(usual, "kube", "run", "--help"); status != 0 || !strings.Contains(out, "--host-users") {
		t.Errorf("help needs no other program: exit %d, %q", status, out)
	}
}
