package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

func codeOf(err error) fault.Code {
	if err == nil {
		return ""
	}
	return fault.From(err, "").Code
}

func TestStateDirectoryIsOursAlone(t *testing.T) {
	top := t.TempDir()
	elsewhere := filepath.Join(top, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	wide := filepath.Join(top, "wide")
	if err := os.Mkdir(wide, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(wide, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(top, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]fault.Code{filepath.Join(top, "new", "er"): "", link: fault.NotAuthorised, wide: fault.NotAuthorised, file: fault.IO} {
		_, err := New(Options{StateDir: dir, ShimPath: "/bin/false"})
		if got := codeOf(err); got != want {
			t.Errorf("%s: code %q, want %q (%v)", dir, got, want, err)
		}
	}
	// Nothing is made behind a link that somebody else may have set.
	if names, err := os.ReadDir(elsewhere); err != nil || len(names) != 0 {
		t.Errorf("behind the link: %v, %v", names, err)
	}
}

// Sweepers remove the directory whenever nobody has locked it; what makeLocked
// returns stands under its name all the same.
func TestMakeLockedAgainstSweepers(t *testing.T) {
	top := t.TempDir()
	dir := layout.Dir(filepath.Join(top, "x"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					sweepOnce(string(dir))
				}
			}
		})
	}
	for range 500 {
		f, err := makeLocked(dir)
		if err != nil {
			if codeOf(err) == fault.InvalidValue {
				continue // the one of the round before is still there
			}
			t.Fatal(err)
		}
		held, err1 := f.Stat()
		named, err2 := os.Stat(string(dir))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(held, named) {
			t.Fatal("the locked directory is not the one under the name")
		}
		f.Close()
	}
	close(stop)
	wg.Wait()
}

// sweepOnce does what the sweep of the shim does with a directory.
func sweepOnce(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	if info, err := f.Stat(); err == nil && linked(info) {
		_ = os.Remove(dir) // it may be gone, which is as good
	}
}
