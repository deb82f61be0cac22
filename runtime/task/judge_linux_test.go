package task

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/task/terms"
)

// TestMessageFile: the author of a pod names the file, so it may be none that the container
// itself could not write.
func TestMessageFile(t *testing.T) {
	mounts := []specs.Mount{
		{Destination: "/read-only", Type: "bind", Source: "/host/shadow", Options: []string{"rbind", "ro"}},
		{Destination: "/all-of-it", Type: "bind", Source: "/host/shadow", Options: []string{"rbind", "rro"}},
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/covered", Type: "bind", Source: "/host/a", Options: []string{"rw"}},
		{Destination: "/covered", Type: "bind", Source: "/host/shadow", Options: []string{"ro"}},
		{Destination: "/dev/termination-log", Type: "bind", Source: "/host/log", Options: []string{"rbind", "rprivate", "rw"}},
	}
	for path, want := range map[string]string{
		"/dev/termination-log": "/host/log", "/read-only": "", "/all-of-it": "", "/proc": "", "/covered": "", "/etc/shadow": "", "/read-only/../dev/termination-log": "",
	} {
		if got := messageFile(mounts, path); got != want {
			t.Errorf("%s is %q, not %q", path, got, want)
		}
	}
}

// TestMessageIsWrittenWhereAnybodyMay: a file, a link or a directory on the way that the
// container's author has chosen is left as it is.
func TestMessageIsWrittenWhereAnybodyMay(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open, closed := file("open", 0o666), file("closed", 0o644)
	link, turn := filepath.Join(dir, "link"), filepath.Join(dir, "turn")
	for name, to := range map[string]string{link: open, turn: "."} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	pipe := fifo(t, "pipe")
	if err := unix.Chmod(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, path := range []string{closed, link, filepath.Join(turn, "open"), dir, pipe, "/dev/null", filepath.Join(dir, "none"), "open"} {
		if err := writeMessage(path, []byte("verdict")); err == nil {
			t.Errorf("%s is written", path)
		}
	}
	for _, path := range []string{open, closed} {
		if text, err := os.ReadFile(path); err != nil || string(text) != "before" {
			t.Errorf("%s has %q, %v", path, text, err)
		}
	}
	if err := writeMessage(open, []byte("late")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(open); err != nil || string(text) != "late" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestOutputGivenAway: a writing end of its output that a command has handed to a process
// outside of its container does not keep its end from being told.
func TestOutputGivenAway(t *testing.T) {
	v := &verdict{outputs: [2]*capture{{limit: 100}, {limit: 100}}, Terms: terms.Terms{}}
	s := newStreams([3]string{}, false)
	if err := v.divert(s); err != nil {
		t.Fatal(err)
	}
	given, err := unix.FcntlInt(s.give[1].Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(given)
	if _, err := s.give[1].WriteString("said"); err != nil {
		t.Fatal(err)
	}
	s.given()
	done := make(chan struct{})
	go func() {
		v.drain()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * draining):
		t.Fatal("it waits for a stranger")
	}
	if got := v.outputs[0].result(); string(got.Kept) != "said" {
		t.Errorf("%q", got.Kept)
	}
}
