package history_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// inNamespace runs the calling test again in a mount namespace of its own, and
// tells whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const variable = "CAPSULE_TEST_IN_NAMESPACE"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), variable+"="+t.Name())
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && os.Getenv("CAPSULE_TEST_STRICT") == "" {
		t.Skip("this host has no user namespaces for this user:", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func mount(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	if err := syscall.Mount("history", dir, "tmpfs", flags, options); err != nil {
		t.Fatal(err)
	}
	if flags&syscall.MS_REMOUNT == 0 {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
}

// refusedIO fails unless err is an I/O fault that says what to do.
func refusedIO(t *testing.T, err error, errno syscall.Errno) {
	t.Helper()
	f := fault.From(err, "")
	if f == nil || f.Code != fault.IO || f.Errno != errno || f.Hint == "" || f.Path == "" {
		t.Errorf("have %+v, want E6001 with %v", f, errno)
	}
}

// TestFullDisk fills a file system of 4 MiB: what is there stays readable, and
// when space returns everything goes on.
func TestFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	mount(t, dir, 0, "size=4m")
	path := filepath.Join(dir, "history.db")
	s := open(t, path, history.Options{})
	put(t, s, 0, 1)
	filler := filepath.Join(dir, "filler")
	err := os.WriteFile(filler, make([]byte, 4<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal("the file system is not full:", err)
	}
	e := entry(2)
	e.Stdout = make([]byte, 1<<20)
	refusedIO(t, s.Put(e), syscall.ENOSPC)
	staged := entry(3)
	staged.Stdout = make([]byte, 12<<20)
	refusedIO(t, s.Put(staged), syscall.ENOSPC)
	for n := range 2 {
		same(t, s, entry(n))
	}
	if page, err := s.List(&api.Filter{All: true}, nil); err != nil || len(page.Executions) != 2 || s.Known(id(2)) || s.Known(id(3)) {
		t.Error("half an entry is there:", page, err)
	}
	// A new file has no place either, and none is left behind.
	other := filepath.Join(dir, "other.db")
	_, err = history.Open(other, history.Options{})
	refusedIO(t, err, syscall.ENOSPC)
	if _, err := os.Lstat(other); !errors.Is(err, os.ErrNotExist) {
		t.Error("half of a new file is left:", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(e); err != nil {
		t.Fatal(err)
	}
	for _, e := range []history.Entry{entry(0), entry(1), e} {
		same(t, s, e)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	mount(t, dir, 0, "")
	path := filepath.Join(dir, "history.db")
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mount(t, dir, syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	for _, path := range []string{path, filepath.Join(dir, "other.db"), filepath.Join(dir, "deep", "other.db")} {
		_, err := history.Open(path, history.Options{})
		refusedIO(t, err, syscall.EROFS)
	}
}

// TestCutWhileOpen takes the pages away from under the memory map: a fault, not
// the end of the process.
func TestCutWhileOpen(t *testing.T) {
	path := file(t)
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, 0, 1, 2)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(id(1)); code(err) != fault.StateUnreadable {
		t.Error(err)
	}
	if _, err := s.List(nil, nil); code(err) != fault.StateUnreadable {
		t.Error(err)
	}
	// One of these meets the damage, the other one is refused because of it.
	for n := range 2 {
		if err := s.Put(entry(5 + n)); code(err) != fault.StateUnreadable {
			t.Error(err)
		}
	}
	if !s.Known(id(77)) {
		t.Error("an id that cannot be looked up may be handed out")
	}
	_ = s.Close() // it may refuse, but returns
	s = open(t, path, history.Options{})
	if s.Damaged() == "" {
		t.Error("the rest was taken for a history")
	}
	put(t, s, 1)
}

// TestCompactWithoutSpace refuses a copy for which the disk has no room, and
// leaves the history as it is.
func TestCompactWithoutSpace(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	mount(t, dir, 0, "size=40m")
	path := filepath.Join(dir, "history.db")
	s, first := emptied(t, path, 200)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := s.Compact()
	f := fault.From(err, "")
	if done != nil || f == nil || f.Code != fault.IO || f.Hint == "" || f.Path != path {
		t.Errorf("%+v, %+v", done, f)
	}
	if _, err := os.Lstat(path + ".compact"); !errors.Is(err, os.ErrNotExist) {
		t.Error("half a copy is left:", err)
	}
	for n := first; n < 200; n++ {
		same(t, s, bulky(n))
	}
	put(t, s, 5000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
