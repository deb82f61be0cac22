package host

import (
	"os"
	"sync"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// TestSwappedSymlink: whichever way the link points when it is read, the
// answer is the allowed directory or a refusal, never the other directory.
func TestSwappedSymlink(t *testing.T) {
	dir := scratch(t)
	must(t, os.Mkdir(dir+"/good", 0o755))
	must(t, os.Symlink(dir+"/good", dir+"/a"))
	must(t, os.Symlink("/etc", dir+"/b"))
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE)
			}
		}
	})
	defer swapper.Wait()
	defer close(stop)
	p := prober{req: request(), facts: new(Facts), idmap: new(IDMapProbe)}
	good, refused := 0, 0
	for i := 0; i < 20000 || ((good == 0 || refused == 0) && i < 1000000); i++ {
		s, f := p.resolve("/x", dir+"/a", useReadable)
		switch {
		case f != nil && f.Code == fault.PathRefused:
			refused++
		case f != nil:
			t.Fatal(f)
		case s.path != dir+"/good":
			t.Fatalf("resolved to %s", s.path)
		default:
			good++
			unix.Close(s.fd)
		}
	}
	t.Logf("%d resolved, %d refused", good, refused)
	if good == 0 || refused == 0 {
		t.Error("the race was never met")
	}
}

// TestRemovedSource: a directory that goes away between the look at it and the
// check of its path is not taken for another of that name.
func TestRemovedSource(t *testing.T) {
	dir := scratch(t)
	must(t, os.Mkdir(dir+"/x", 0o755))
	fd, err := openPath(dir+"/x", 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.Remove(dir+"/x"))
	must(t, os.Mkdir(dir+"/y", 0o755))
	must(t, os.Mkdir(dir+"/x", 0o755))
	p := prober{req: request(), facts: new(Facts), idmap: new(IDMapProbe)}
	_, f := p.examine(&source{fd: fd}, useReadable, func(c fault.Code, m string) *fault.Fault { return fault.New(c, "", m) })
	if f == nil || f.Code != fault.InvalidPath {
		t.Errorf("got %v", f)
	}
}

// TestReplacedSource: a file that is replaced again and again, as ldconfig does
// with its cache, is found each time.
func TestReplacedSource(t *testing.T) {
	dir := scratch(t)
	must(t, os.WriteFile(dir+"/x", nil, 0o644))
	stop := make(chan struct{})
	var replacer sync.WaitGroup
	replacer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := os.WriteFile(dir+"/new", nil, 0o644); err != nil {
				t.Error(err)
				return
			}
			if err := os.Rename(dir+"/new", dir+"/x"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer replacer.Wait()
	defer close(stop)
	p := prober{req: request(), facts: new(Facts), idmap: new(IDMapProbe)}
	for range 2000 {
		s, f := p.resolve("/x", dir+"/x", useReadable)
		if f != nil {
			t.Fatal(f)
		}
		if s.path != dir+"/x" {
			t.Fatalf("resolved to %s", s.path)
		}
		unix.Close(s.fd)
	}
}
