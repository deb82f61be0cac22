package shim

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
)

// open opens a directory and closes it with the test.
func open(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestSweepTakesOnlyTheDead(t *testing.T) {
	state := layout.State(t.TempDir())
	other := state.Execution("lost+found")
	alive, dead := state.Execution("00000000-57e5-4000-8000-000000000001"), state.Execution("00000000-57e5-4000-8000-000000000002")
	for _, dir := range []layout.Dir{alive, dead, other} {
		if err := os.MkdirAll(dir.Bundle(), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Flock(open(t, string(alive)), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(state); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(alive.Bundle()); err != nil {
		t.Errorf("a live execution was swept: %v", err)
	}
	if _, err := os.Stat(string(other)); err != nil {
		t.Errorf("what is no execution was swept: %v", err)
	}
	if _, err := os.Stat(string(dead)); !os.IsNotExist(err) {
		t.Errorf("a dead execution was left: %v", err)
	}
}

// A sweeper may hold a directory that another one has removed, and whose name
// a new execution has taken since.
func TestClaimRefusesARemovedDirectory(t *testing.T) {
	dir := t.TempDir() + "/execution"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fd := open(t, dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if claim(fd) {
		t.Error("the old directory was claimed, and the new one would be removed")
	}
	if !claim(open(t, dir)) {
		t.Error("the new directory, which nobody holds, was not claimed")
	}
}
