package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

func TestKillReachesTheWholeTree(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		g := newGroup(t, h, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(100))}})
		cmd := start(t, g, "tree")
		out, err := cmd.Output()
		if err != nil || !bytes.Contains(out, []byte("planted")) {
			t.Fatalf("%s %v", out, err)
		}
		if empty, err := g.Empty(); empty || err != nil {
			t.Fatalf("the tree is gone already: %v %v", empty, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := g.WaitEmpty(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a living group: %v", err)
		}
		if err := g.Remove(ctx); err == nil {
			t.Error("a living group was removed")
		}
		kill(t, g)
		if empty, err := g.Empty(); !empty || err != nil {
			t.Errorf("after the kill: %v %v", empty, err)
		}
	}, Pids)
}

// TestEnd: a group goes with all that is in it, with what its payload made below it, and
// when it is empty.
func TestEnd(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		for _, role := range []string{"tree", "nested", ""} {
			g := newGroup(t, h, nil)
			switch role {
			case "tree":
				if out, err := start(t, g, role).Output(); err != nil {
					t.Fatalf("%s %v", out, err)
				}
			case "nested":
				for _, path := range g.Paths() {
					if err := os.Mkdir(path+"/below", 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			paths := g.Paths()
			for range 2 {
				if err := g.End(soon(t)); err != nil {
					t.Errorf("%q: %v", role, err)
				}
			}
			for _, path := range paths {
				if exists(path) {
					t.Errorf("%q: %s is still there", role, path)
				}
			}
		}
	})
}

func TestSweepRemovesWhatADeadShimLeft(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		for _, byName := range []bool{true, false} {
			g := newGroup(t, h, nil)
			if out, err := start(t, g, "tree").Output(); err != nil {
				t.Fatalf("%s %v", out, err)
			}
			paths := g.Paths()
			name := strings.TrimPrefix(filepath.Base(paths[0]), groupPrefix)
			if names := h.Names(); !strings.Contains(strings.Join(names, " ")+" ", name+" ") {
				t.Errorf("%s is not among %v", name, names)
			}
			g.Close()
			var err error
			if byName {
				err = Sweep(soon(t), h, name)
			} else {
				err = SweepPaths(soon(t), paths)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				if exists(path) {
					t.Errorf("%s is still there", path)
				}
			}
			if err := g.Remove(soon(t)); err != nil {
				t.Errorf("removing what is gone: %v", err)
			}
			if err := Sweep(soon(t), h, name); err != nil {
				t.Errorf("sweeping what is gone: %v", err)
			}
		}
	})
}

func TestSweepRefusesForeignPaths(t *testing.T) {
	for _, path := range []string{"/tmp", "/sys/fs/cgroup", "/sys/fs/cgroup/../../../tmp/capsule-x", "/sys/fs/cgroup/system.slice", "capsule-x"} {
		if err := SweepPaths(soon(t), []string{path}); !errors.Is(err, &fault.Fault{Code: fault.Cgroup}) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestConcurrentCreateAndRemove(t *testing.T) {
	h := needHost(t)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for round := range 3 {
				// A Host each, as 32 processes would have.
				h, err := Detect()
				if err != nil {
					t.Error(err)
					return
				}
				g, err := h.Create(fmt.Sprintf("%sconcurrent-%d-%d", testPrefix(), i, round), &specs.LinuxResources{}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if err := g.Remove(soon(t)); err != nil {
					t.Error(err)
				}
				if err := g.Remove(soon(t)); err != nil {
					t.Errorf("the second time: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, name := range h.Names() {
		if strings.HasPrefix(name, testPrefix()) {
			t.Errorf("%s is left", name)
		}
	}
}

func TestNestedGroupsGoToo(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		g := newGroup(t, h, nil)
		for _, path := range g.Paths() {
			if err := os.MkdirAll(path+"/a/b", 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Remove(soon(t)); err != nil {
			t.Error(err)
		}
	})
}

func TestWithoutAnyHierarchy(t *testing.T) {
	h, err := detect(t.TempDir(), ModeNone, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20))}, Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}
	if _, err := h.Create("x", r, nil); !errors.Is(err, &fault.Fault{Code: fault.LimitUnavailable}) {
		t.Errorf("limits that nothing enforces: %v", err)
	}
	g, err := h.Create("x", r, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	s, err := g.Stats()
	if err != nil || s != (Stats{}) || g.Confirmed[LimitMemory] || g.Confirmed[LimitPids] {
		t.Errorf("%+v %v %v", s, g.Confirmed, err)
	}
	if err := g.Kill(); !errors.Is(err, &fault.Fault{Code: fault.Cgroup}) {
		t.Errorf("a kill that reaches nobody: %v", err)
	}
	if err := g.Remove(soon(t)); err != nil {
		t.Error(err)
	}
}
