package server_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPythonExample runs the example of docs/protocol.md.
func TestPythonExample(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("CAPSULE_TEST_STRICT") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip("needs python3")
	}
	f := newFake()
	f.instant = true
	address, _ := serve(t, f, nil)
	out, err := exec.CommandContext(within(t), python, "../../docs/examples/capsule_ttrpc.py", address).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `success exited 0 'hello\n'`) || !strings.Contains(string(out), "as expected: E6007") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
