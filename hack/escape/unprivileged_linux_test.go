package escape

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestAsUnprivilegedUser runs the tests again as a user that has nothing.
func TestAsUnprivilegedUser(t *testing.T) {
	const marker = "CAPSULE_ESCAPE_UNPRIVILEGED"
	if os.Geteuid() != 0 || os.Getenv(marker) != "" {
		t.Skip("only root can become another user")
	}
	if slow() > 1 {
		t.Skip("slow machines are started once for each user")
	}
	bin, err := programs()
	must(t, err)
	dir := scratch(t)
	must(t, os.Mkdir(dir+"/bin", 0o755))
	for _, name := range []string{"capsulectl", "capsule-shim", "capsule-seccomp"} {
		copyFile(t, filepath.Join(bin, name), dir+"/bin/"+name)
	}
	copyFile(t, "/proc/self/exe", dir+"/escape.test")
	cmd := exec.Command(dir+"/escape.test", "-test.v", "-test.timeout=10m")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "CAPSULE_BIN=" + dir + "/bin", marker + "=1",
		"CAPSULE_ESCAPE_ROUNDS=" + os.Getenv("CAPSULE_ESCAPE_ROUNDS")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	var told strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "=== ") {
			told.WriteString(line)
		}
	}
	if err != nil || testing.Verbose() {
		t.Log(told.String())
	}
	if err != nil {
		t.Error(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
}
