package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/shim/shimapi"
)

// witness is a shim that writes down what it was given, and then dies.
const witness = `#!/bin/sh
exec 2>/dev/null
{ echo "started $1"; env | sort; ls -l /proc/self/fd; echo "slack $(cat /proc/self/timerslack_ns)"; } >>%OUT%
`

// TestShimInheritsNothing starts capsulectl with a secret in its environment and
// a file left open by its caller: the shim gets neither, and is started once,
// whether before capsulectl's own runtime or by it.
func TestShimInheritsNothing(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join(bin, "capsulectl"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	for name, data := range map[string][]byte{"capsulectl": program, "capsule-shim": []byte(strings.ReplaceAll(witness, "%OUT%", out))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stray, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	cmd := exec.Command(filepath.Join(dir, "capsulectl"), "run", "--json")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "SECRET=told", "CAPSULE_STATE=" + filepath.Join(dir, "state")}
	cmd.Stdin = strings.NewReader(`{"command":["true"]}`)
	cmd.ExtraFiles = []*os.File{stray, stray, stray, stray, stray, stray, stray}
	answer, err := cmd.Output()
	if err == nil {
		t.Errorf("a shim that dies is a success: %s", answer)
	}
	seen, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	text := string(seen)
	// One that is seen to die before it has a request is replaced, once.
	if n := strings.Count(text, "started \n"); n < 1 || n > 2 {
		t.Errorf("the shim was started %d times", n)
	}
	if want := fmt.Sprintf("slack %d\n", shimapi.TimerSlack); !strings.Contains(text, want) {
		t.Errorf("the shim has not %q:\n%s", want, text)
	}
	for _, secret := range []string{"SECRET", dir + "\n", "CAPSULE_STATE"} {
		if strings.Contains(text, secret) {
			t.Errorf("the shim has %q:\n%s", secret, text)
		}
	}
	if !strings.Contains(string(answer), `"reason":"shim_lost"`) && !strings.Contains(string(answer), `"code":"E6004"`) {
		t.Errorf("answer: %s", answer)
	}
}

// TestTimersAreTheUsual: a command's timers are as exact as elsewhere, whatever its shim has,
// also after it has asked for its default.
func TestTimersAreTheUsual(t *testing.T) {
	c := begin(t)
	ask := python("import ctypes\nl = ctypes.CDLL(None)\nprint(l.prctl(30, 0, 0, 0, 0))\nl.prctl(29, 0, 0, 0, 0)\nprint(l.prctl(30, 0, 0, 0, 0))")
	for name, isolation := range map[string]object{"usual": {}, "without init": {"init": false}} {
		if o := c.run(object{"command": ask, "isolation": isolation}); o.text() != "50000\n50000\n" {
			t.Errorf("%s: %q, %+v", name, o.text(), o.Error)
		}
	}
	if o := bare(t).run(process(ask)); o.text() != "50000\n50000\n" {
		t.Errorf("process backend: %q, %+v", o.text(), o.Error)
	}
}

// TestRefusalLeavesNoShim: what is started early is gone when a refusal is told.
func TestRefusalLeavesNoShim(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // programs of its own, so that no other test's shim is met
	for _, name := range []string{"capsulectl", "capsule-shim"} {
		data, err := os.ReadFile(filepath.Join(bin, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		cmd := exec.Command(filepath.Join(dir, "capsulectl"), "run", "--json")
		cmd.Env = []string{"PATH=/usr/bin:/bin", "CAPSULE_STATE=" + filepath.Join(dir, "state")}
		cmd.Stdin = strings.NewReader(`{"command":[]}`)
		_ = cmd.Run() // the status is what counts
		if code := cmd.ProcessState.ExitCode(); code != 125 {
			t.Fatalf("exit status %d", code)
		}
		programs, err := filepath.Glob("/proc/[0-9]*/exe")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range programs {
			if exe, err := os.Readlink(path); err == nil && exe == filepath.Join(dir, "capsule-shim") {
				t.Errorf("%s is left", path)
			}
		}
	}
}
