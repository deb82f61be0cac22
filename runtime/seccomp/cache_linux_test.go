package seccomp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/spec/fault"
)

// fakeProgram is what the fake helper compiles everything to.
var fakeProgram = []byte("\x06\x00\x00\x00\x00\x00\xff\x7f\x06\x00\x00\x00\x01\x00\x05\x00")

// fakeHelper makes a helper of a shell script that counts its runs.
func fakeHelper(t testing.TB, script string) (helper string, runs func() int) {
	t.Helper()
	dir := t.TempDir()
	helper, log := filepath.Join(dir, "helper"), filepath.Join(dir, "log")
	text := "#!/bin/sh\necho run >>" + log + "\n" + script + "\n"
	if err := os.WriteFile(helper, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return helper, func() int {
		data, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return bytes.Count(data, []byte("run\n"))
	}
}

const goodScript = `cat >/dev/null; printf '\006\000\000\000\000\000\377\177\006\000\000\000\001\000\005\000'`

func newCache(t testing.TB, script string) (*Cache, func() int) {
	helper, runs := fakeHelper(t, script)
	return &Cache{Dir: filepath.Join(t.TempDir(), "cache"), Helper: helper}, runs
}

func mustGet(t testing.TB, c *Cache) {
	t.Helper()
	program, err := c.Named(context.Background(), "default")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(program, fakeProgram) {
		t.Fatalf("program %x, want %x", program, fakeProgram)
	}
}

func cached(t testing.TB, c *Cache) string {
	t.Helper()
	key, err := HashProfile("default")
	if err != nil {
		t.Fatal(err)
	}
	return c.path(key)
}

func TestCacheHit(t *testing.T) {
	c, runs := newCache(t, goodScript)
	for range 3 {
		mustGet(t, c)
	}
	if n := runs(); n != 1 {
		t.Errorf("the helper ran %d times for one program", n)
	}
	info, err := os.Stat(cached(t, c))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("file %v %v", info.Mode(), err)
	}
	if info, err := os.Stat(c.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory %v %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(c.Dir + "/*.tmp"); len(left) != 0 {
		t.Errorf("temporary files %v", left)
	}
}

// TestCacheDistrust spoils the file in each way that must not be believed and
// expects a compilation and a good file afterwards.
func TestCacheDistrust(t *testing.T) {
	edit := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(make func(path string) error) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Rename(path, path+".good"); err != nil {
				t.Fatal(err)
			}
			if err := make(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := map[string]func(*testing.T, string){
		"empty":         edit(func(b []byte) []byte { return nil }),
		"torn":          edit(func(b []byte) []byte { return b[:len(b)-8] }),
		"zeroed tail":   edit(func(b []byte) []byte { return append(b[:8:8], make([]byte, len(b)-8)...) }),
		"flipped bit":   edit(func(b []byte) []byte { b[4] ^= 1; return b }),
		"odd length":    edit(func(b []byte) []byte { return append(b, 0) }),
		"trailer only":  edit(func(b []byte) []byte { return b[len(b)-trailerSize:] }),
		"too long":      edit(func(b []byte) []byte { return make([]byte, bpf.MaxInstructions*8+8+trailerSize) }),
		"another's key": edit(func(b []byte) []byte { return seal(strings.Repeat("0", 64), identity{}, fakeProgram) }),
		"mode 0644":     func(t *testing.T, p string) { check(t, os.Chmod(p, 0o644)) },
		"mode 0400":     func(t *testing.T, p string) { check(t, os.Chmod(p, 0o400)) },
		"symbolic link": replace(func(p string) error { return os.Symlink(p+".good", p) }),
		"FIFO":          replace(func(p string) error { return syscall.Mkfifo(p, 0o600) }),
		"gone":          func(t *testing.T, p string) { check(t, os.Remove(p)) },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			c, runs := newCache(t, goodScript)
			mustGet(t, c)
			spoil(t, cached(t, c))
			mustGet(t, c)
			if n := runs(); n != 2 {
				t.Errorf("the helper ran %d times, want 2", n)
			}
			mustGet(t, c)
			if n := runs(); n != 2 {
				t.Errorf("the file was not mended: %d runs", n)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCacheForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a file away needs root")
	}
	c, runs := newCache(t, goodScript)
	mustGet(t, c)
	check(t, os.Chown(cached(t, c), 12345, 12345))
	mustGet(t, c)
	if n := runs(); n != 2 {
		t.Errorf("a file of another user was read: %d runs", n)
	}
}

func TestCacheHelperUpgrade(t *testing.T) {
	c, runs := newCache(t, goodScript)
	mustGet(t, c)
	data, err := os.ReadFile(c.Helper)
	check(t, err)
	check(t, os.WriteFile(c.Helper, append(data, '\n'), 0o700))
	mustGet(t, c)
	if n := runs(); n != 2 {
		t.Errorf("a program of the old helper was used: %d runs", n)
	}
}

func TestCacheUnwritable(t *testing.T) {
	c, runs := newCache(t, goodScript)
	c.Dir = "/proc/self/fdinfo/cache" // A place where nobody can make files, root included.
	mustGet(t, c)
	mustGet(t, c)
	if n := runs(); n != 2 {
		t.Errorf("%d runs", n)
	}
}

func TestCacheFaults(t *testing.T) {
	cases := []struct {
		name, script string
		want         fault.Code
		field, text  string
	}{
		{"refused object", `echo "E2003 linux.seccomp.syscalls[3].names[0]: no such call" >&2; exit 1`, fault.Seccomp, "linux.seccomp.syscalls[3].names[0]", "no such call"},
		{"no libseccomp", `echo "E2003 compile: this build has no libseccomp" >&2; exit 1`, fault.Seccomp, "", "no libseccomp"},
		{"other words", `echo "Segmentation fault" >&2; exit 139`, fault.Seccomp, "", "exit status 139"},
		{"nothing", `exit 0`, fault.Seccomp, "", "gave no program"},
		{"odd bytes", `echo hello`, fault.Seccomp, "", "gave no program"},
		{"too much", `exec head -c 100000 /dev/zero`, fault.Seccomp, "", ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := newCache(t, tc.script)
			_, err := c.Named(context.Background(), "strict")
			var f *fault.Fault
			if !errors.As(err, &f) {
				t.Fatalf("got %v", err)
			}
			if f.Code != tc.want || f.Field != tc.field || !strings.Contains(f.Message(), tc.text) || f.Remedy() == "" {
				t.Errorf("got code %s field %q message %q hint %q", f.Code, f.Field, f.Message(), f.Remedy())
			}
			if files, _ := os.ReadDir(c.Dir); len(files) != 0 {
				t.Errorf("a failure left %v", files)
			}
		})
	}
	c := &Cache{Dir: t.TempDir(), Helper: "/nonexistent/capsule-seccomp"}
	_, err := c.Named(context.Background(), "default")
	if f := fault.From(err, fault.IO); f.Code != fault.Seccomp || f.Errno != syscall.ENOENT || f.Hint == "" {
		t.Errorf("missing helper: %v", err)
	}
	if _, err := c.Get(context.Background(), "../x", nil); !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
		t.Errorf("bad key: %v", err)
	}
}

func TestCacheCancel(t *testing.T) {
	c, _ := newCache(t, "exec sleep 60")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Named(ctx, "default")
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
		t.Errorf("got %v", err)
	}
}

// TestCacheRace lets many callers meet on an empty directory while one spoils the file.
func TestCacheRace(t *testing.T) {
	c, _ := newCache(t, goodScript)
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for range 5 {
				program, err := c.Named(context.Background(), "default")
				if err != nil || !bytes.Equal(program, fakeProgram) {
					t.Errorf("program %x, %v", program, err)
				}
				if i == 0 {
					_ = os.Truncate(c.path(mustKey(t)), 8)
				}
			}
		})
	}
	group.Wait()
	if left, _ := filepath.Glob(c.Dir + "/*.tmp"); len(left) != 0 {
		t.Errorf("temporary files %v", left)
	}
}

func mustKey(t testing.TB) string {
	key, err := HashProfile("default")
	if err != nil {
		t.Error(err)
	}
	return key
}

func TestCacheSweep(t *testing.T) {
	c, _ := newCache(t, goodScript)
	check(t, os.Mkdir(c.Dir, 0o700))
	old := time.Now().Add(-time.Hour)
	for i := range maxFiles + 10 {
		path := c.path(fmt.Sprintf("%064x", i))
		check(t, os.WriteFile(path, nil, 0o600))
		check(t, os.Chtimes(path, old, old.Add(time.Duration(i)*time.Second)))
	}
	dead, live := c.Dir+"/dead.tmp", c.Dir+"/live.tmp"
	check(t, os.WriteFile(dead, nil, 0o600))
	check(t, os.Chtimes(dead, old, old))
	check(t, os.WriteFile(live, nil, 0o600))
	mustGet(t, c)
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Error("a dead writer's file remains")
	}
	if _, err := os.Stat(live); err != nil {
		t.Error("a live writer's file is gone")
	}
	programs, _ := filepath.Glob(c.Dir + "/*.bpf")
	if len(programs) != maxFiles {
		t.Errorf("%d programs remain, want %d", len(programs), maxFiles)
	}
	if _, err := os.Stat(c.path(fmt.Sprintf("%064x", 0))); !os.IsNotExist(err) {
		t.Error("the oldest program remains")
	}
}

// BenchmarkCacheHit has a program of the size of the default profile's.
func BenchmarkCacheHit(b *testing.B) {
	c, _ := newCache(b, "exit 1")
	id, err := c.helperIdentity()
	if err != nil {
		b.Fatal(err)
	}
	c.store(mustKey(b), seal(mustKey(b), id, bytes.Repeat(fakeProgram[:8], 541)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Named(context.Background(), "default"); err != nil {
			b.Fatal(err)
		}
	}
}
