package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAsUnprivilegedUser runs the tests again, but for the longest, as a user
// that has nothing.
func TestAsUnprivilegedUser(t *testing.T) {
	const marker = "CAPSULE_E2E_UNPRIVILEGED"
	if os.Geteuid() != 0 || os.Getenv(marker) != "" {
		t.Skip("only root can become another user")
	}
	if slow() > 1 {
		t.Skip("slow machines are started once for each user")
	}
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	// The checkout may be out of that user's reach.
	dir, err := os.MkdirTemp(scratch(), "unprivileged-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	copyTo := filepath.Join(dir, "bin")
	if err := os.Mkdir(copyTo, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"capsulectl", "capsule-shim", "capsule-seccomp"} {
		copyFile(t, filepath.Join(bin, name), filepath.Join(copyTo, name))
	}
	copyFile(t, "/proc/self/exe", filepath.Join(dir, "e2e.test"))

	cmd := exec.Command("./e2e.test", "-test.v", "-test.short", "-test.timeout="+(10*time.Minute).String())
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "CAPSULE_BIN=" + copyTo, marker + "=1", "CAPSULE_TEST_STRICT=" + os.Getenv("CAPSULE_TEST_STRICT")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || testing.Verbose() {
		t.Log(withoutRuns(string(out)))
	}
	if err != nil {
		t.Error(err)
	}
}

// withoutRuns leaves out the lines that only tell that a test began.
func withoutRuns(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
