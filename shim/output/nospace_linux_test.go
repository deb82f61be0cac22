package output

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

const nospaceChild = "CAPSULE_OUTPUT_NOSPACE"

// TestNoSpace runs again in a mount namespace of its own, with a small tmpfs.
func TestNoSpace(t *testing.T) {
	if os.Getenv(nospaceChild) != "" {
		fillUp(t)
		return
	}
	c := exec.Command("/proc/self/exe", "-test.run=^TestNoSpace$", "-test.v")
	c.Env = append(os.Environ(), nospaceChild+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil {
		t.Skip("no private mount namespace here:", err)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestNoSpace")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// fillUp runs in the namespace.
func fillUp(t *testing.T) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	const space = 256 << 10
	all := pattern(1<<20 + 11)
	for _, policy := range []spec.OutputPolicy{spec.OutputTruncate, spec.OutputTail} {
		for _, room := range []int{0, 4096, memLimit, space} {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
				t.Fatal(err)
			}
			occupy(t, dir+"/other", space-room)
			c := startIn(t, dir, 1<<20, policy, nil)
			live := c.Subscribe(0)
			got := make(chan []byte)
			go func() { defer live.Close(); got <- collect(t, live, 0) }()
			c.write(all)
			c.end()
			if b := <-got; !bytes.Equal(b, all) {
				t.Errorf("%s room %d: the subscriber got %d bytes", policy, room, len(b))
			}
			// The kernel counts the pages of a tmpfs per CPU and may stop early.
			count, kept := c.Counts(), c.Counts().BytesKept
			if count.BytesTotal != int64(len(all)) || !count.Truncated || kept < memLimit || kept > int64(max(room, memLimit)) {
				t.Errorf("%s room %d: %+v", policy, room, count)
			}
			if !bytes.Equal(c.bytes(), model(all, kept, policy)) {
				t.Errorf("%s room %d: wrong bytes", policy, room)
			}
			if err := c.Err(); err == nil || err.Code != "E3004" || err.Errno != syscall.ENOSPC {
				t.Errorf("%s room %d: fault %v", policy, room, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
}

// occupy takes n bytes of the file system.
func occupy(t *testing.T, name string, n int) {
	t.Helper()
	if err := os.WriteFile(name, make([]byte, n), 0o600); err != nil {
		t.Fatal(err)
	}
}
