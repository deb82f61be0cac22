package launch

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestForgedProcfs: only the context of a procfs passes for one, whatever was said to it before.
func TestForgedProcfs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root opens the context of a file system here")
	}
	for kind, good := range map[string]bool{"proc": true, "tmpfs": false, "sysfs": false, "overlay": false} {
		fd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
		if err == unix.ENODEV && kind == "overlay" {
			continue // a module that is not there
		}
		if err != nil {
			t.Fatal(kind, err)
		}
		if err := isProcfs(fd); (err == nil) != good {
			t.Errorf("%s: %v", kind, err)
		}
		// More messages than the kernel keeps, one of which tells of a procfs.
		for range 20 {
			_ = unix.FsconfigSetFlag(fd, "x'\ne proc: Unknown parameter 'of-which-kind") // refused, or a part of the options
		}
		if err := isProcfs(fd); (err == nil) != good {
			t.Errorf("%s that was asked before: %v", kind, err)
		}
		unix.Close(fd)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if err := isProcfs(pipe[0]); err == nil {
		t.Error("a pipe passes")
	}
}
