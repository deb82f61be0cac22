package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// capture is a stream under test with its write end.
type capture struct {
	*Stream
	t   testing.TB
	dir string
	w   *os.File
}

// leakCheck fails the test when it leaves descriptors or goroutines behind.
// The reader ends after Finish without being waited for, hence the yields.
func leakCheck(t testing.TB) {
	t.Helper()
	// The runtime opens its poller's two descriptors with the first pipe and
	// keeps them; they are no leak, so they are there before the count.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close() // Nothing was written.
	w.Close()
	fds, routines := openDescriptors(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		for begin := time.Now(); time.Since(begin) < 5*time.Second; {
			if runtime.NumGoroutine() <= routines && openDescriptors(t) <= fds {
				return
			}
			runtime.Gosched()
		}
		stacks := make([]byte, fullRead)
		t.Errorf("descriptors %d -> %d, goroutines %d -> %d\n%s", fds, openDescriptors(t), routines, runtime.NumGoroutine(),
			stacks[:runtime.Stack(stacks, true)])
	})
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// start captures into a fresh directory.
func start(t testing.TB, limit int64, policy spec.OutputPolicy, onLimit func()) *capture {
	t.Helper()
	return startIn(t, t.TempDir(), limit, policy, onLimit)
}

func startIn(t testing.TB, dir string, limit int64, policy spec.OutputPolicy, onLimit func()) *capture {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(r, Config{Name: "stdout", Dir: int(d.Fd()), Limit: limit, Policy: policy, OnLimit: onLimit})
	if err != nil {
		t.Fatal(err)
	}
	c := &capture{Stream: s, t: t, dir: dir, w: os.NewFile(uintptr(w), "payload")}
	t.Cleanup(func() {
		c.w.Close() // Often closed already.
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		d.Close() // Read only.
	})
	return c
}

// write is what the payload does.
func (c *capture) write(p []byte) {
	c.t.Helper()
	if _, err := c.w.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

// end closes the payload's end and finishes.
func (c *capture) end() {
	c.t.Helper()
	c.w.Close() // A pipe.
	if !c.Drain(DefaultQuiet, DefaultMax) {
		c.t.Error("Drain did not see the end")
	}
	c.Finish()
}

// reach waits, without sleeping, until the total is n.
func (c *capture) reach(n int64) {
	for c.Counts().BytesTotal < n {
		runtime.Gosched()
	}
}

func (c *capture) bytes() []byte {
	c.t.Helper()
	b, err := c.Bytes()
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// saved is the content of the file after Save; nil without a file.
func (c *capture) saved() []byte {
	c.t.Helper()
	if err := c.Save(); err != nil {
		c.t.Fatal(err)
	}
	name := filepath.Join(c.dir, "stdout")
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		c.t.Fatal(err)
	}
	info, err := os.Lstat(name)
	if err != nil || info.Mode() != 0o600 {
		c.t.Errorf("file: %v, %v", info.Mode(), err)
	}
	return b
}

// pattern is n bytes in which every place can be told from its neighbours.
func pattern(n int) []byte {
	p := make([]byte, n)
	x := uint32(2463534242)
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return p
}

// model is the policy in three lines.
func model(all []byte, limit int64, policy spec.OutputPolicy) []byte {
	n := min(int64(len(all)), limit)
	if policy == spec.OutputTail {
		return all[int64(len(all))-n:]
	}
	return all[:n]
}

func TestNewRefuses(t *testing.T) {
	leakCheck(t)
	good := Config{Name: "stdout", Limit: 1, Policy: spec.OutputTruncate}
	for _, c := range []struct {
		code fault.Code
		edit func(*Config)
	}{
		{fault.InvalidValue, func(c *Config) { c.Name = "" }},
		{fault.InvalidValue, func(c *Config) { c.Name = ".." }},
		{fault.InvalidValue, func(c *Config) { c.Name = "a/b" }},
		{fault.InvalidValue, func(c *Config) { c.Policy = "" }},
		{fault.InvalidValue, func(c *Config) { c.Policy = "Kill" }},
		{fault.OutOfRange, func(c *Config) { c.Limit = -1 }},
		{fault.OutOfRange, func(c *Config) { c.Limit = MaxLimit + 1 }},
	} {
		cfg := good
		c.edit(&cfg)
		r, w, err := Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(r, cfg)
		var f *fault.Fault
		if s != nil || !errors.As(err, &f) || f.Code != c.code {
			t.Errorf("%+v: %v, %v", cfg, s, err)
		}
		os.NewFile(uintptr(w), "payload").Close() // A pipe.
	}
	if s, err := New(-1, good); s != nil || err == nil {
		t.Error("a bad descriptor was taken")
	}
}

func ExamplePipe() {
	dir, _ := os.Open(os.TempDir())
	defer dir.Close()
	r, w, _ := Pipe()
	s, _ := New(r, Config{Name: "stdout", Dir: int(dir.Fd()), Limit: 4, Policy: spec.OutputTail})
	defer s.Close()
	payload := os.NewFile(uintptr(w), "payload")
	payload.WriteString("hello")
	payload.Close()
	s.Drain(DefaultQuiet, DefaultMax)
	s.Finish()
	kept, _ := s.Bytes()
	fmt.Printf("%s %+v\n", kept, s.Counts())
	// Output: ello {BytesTotal:5 BytesKept:4 Truncated:true}
}
