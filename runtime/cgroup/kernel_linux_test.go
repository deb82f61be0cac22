package cgroup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// variants runs a test on the host as it is and, where it is hybrid, on its
// v1 hierarchies alone.
func variants(t *testing.T, test func(t *testing.T, h *Host), controllers ...string) {
	t.Run("host", func(t *testing.T) { test(t, needHost(t, controllers...)) })
	t.Run("v1", func(t *testing.T) { test(t, withoutUnified(t)) })
}

func TestDetect(t *testing.T) {
	h := needHost(t)
	t.Logf("mode %s, delegated %v, parents %v, missing %v", h.Mode, h.Delegated, h.Parents(), h.Missing())
	again, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Prepare(); err != nil {
		t.Fatal(err)
	}
	if got, want := again.Parents(), h.Parents(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("parents %v, then %v", want, got)
	}
}

func TestLimitsAreConfirmed(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		g := newGroup(t, h, &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr(int64(64<<20 + 123))},
			Pids:   &specs.LinuxPids{Limit: ptr(int64(20))},
			CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
		})
		for _, limit := range []string{LimitMemory, LimitSwap, LimitPids, LimitCPUShares, LimitCPUQuota} {
			if !g.Confirmed[limit] {
				t.Errorf("%s is not confirmed: %v", limit, g.Confirmed)
			}
		}
	}, Memory, Pids, CPU)
}

func TestIOLimit(t *testing.T) {
	h := needHost(t, IO)
	devices, _ := filepath.Glob("/sys/block/*/dev")
	for _, path := range devices {
		var major, minor int64
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if _, err := fmt.Sscanf(string(content), "%d:%d", &major, &minor); err != nil {
			continue
		}
		device := specs.LinuxThrottleDevice{Rate: 1 << 20}
		device.Major, device.Minor = major, minor
		g := newGroup(t, h, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{device}, ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{device}}})
		if !g.Confirmed[LimitIO] {
			t.Errorf("io is not confirmed: %v", g.Confirmed)
		}
		return
	}
	t.Skip("no block device")
}

func TestMissingControllerIsRefused(t *testing.T) {
	h := needHost(t, Pids)
	r := &specs.LinuxResources{
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 0}},
		CPU:            &specs.LinuxCPU{Cpus: "0"},
		Pids:           &specs.LinuxPids{Limit: ptr(int64(5))},
	}
	name := testPrefix() + "missing"
	_, err := h.Create(name, r, nil)
	var list fault.List
	if !errors.As(err, &list) || len(list) != 2 || list[0].Code != fault.LimitUnavailable {
		t.Fatalf("got %v, want two faults E4001", err)
	}
	g, err := h.Create(name, r, func(limit string) bool { return limit != LimitPids })
	if err != nil {
		t.Fatal(err)
	}
	if g.Confirmed["hugepages"] || g.Confirmed["cpuset"] || !g.Confirmed[LimitPids] {
		t.Errorf("confirmed: %v", g.Confirmed)
	}
	if err := g.Remove(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestMemoryHogIsKilledAndCounted(t *testing.T) {
	const limit = 64 << 20
	variants(t, func(t *testing.T, h *Host) {
		g := newGroup(t, h, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(limit))}})
		err := start(t, g, "hog").Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the hog ended with %v", err)
		}
		s := stats(t, g)
		if s.OOMKills == nil || *s.OOMKills != 1 {
			t.Errorf("OOM kills: %v", show(s.OOMKills))
		}
		if s.MemoryPeak == nil {
			// memory.peak came with 5.19.
			if h.Mode != ModeV2 {
				t.Error("the peak was not measured")
			}
		} else if *s.MemoryPeak > limit+1<<20 || *s.MemoryPeak < limit*9/10 {
			// The kernel lets a dying task charge a few pages over the limit.
			t.Errorf("peak %d, limit %d", *s.MemoryPeak, limit)
		}
	}, Memory)
}

func TestForkBombIsHeldAndCounted(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		g := newGroup(t, h, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(10))}})
		// Each shell starts two more and waits; the limit holds them at ten. The
		// depth bounds the bomb at 127 processes should the limit fail.
		cmd := start(t, g, "", "/bin/sh", "-c",
			`f() { if [ $1 -gt 0 ]; then f $(($1-1)) & f $(($1-1)) & wait; else exec sleep 60; fi; }; f 6`)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ctx := soon(t)
		for round := 0; ; round++ {
			s := stats(t, g)
			if s.PidsLimitHits != nil && *s.PidsLimitHits > 0 {
				if s.PidsPeak != nil && *s.PidsPeak != 10 {
					t.Errorf("peak %d, want 10", *s.PidsPeak)
				}
				break
			}
			if pause(ctx, round) != nil {
				t.Fatal("no fork was refused in a minute")
			}
		}
		kill(t, g)
		_ = cmd.Wait()
	}, Pids)
}

func TestCPUTimeIsMeasured(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		g := newGroup(t, h, nil)
		cmd := start(t, g, "spin")
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		s := stats(t, g)
		if s.CPU == nil || s.User == nil || s.Kernel == nil {
			t.Fatalf("not measured: %+v", s)
		}
		// The wait status counts what the shell did before it was in the group.
		if *s.CPU < used*8/10 || *s.CPU > used*13/10 || *s.User+*s.Kernel != *s.CPU {
			t.Errorf("cpu %v = user %v + kernel %v, rusage says %v", *s.CPU, *s.User, *s.Kernel, used)
		}
	}, CPU)
}

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

func TestNamesAreChecked(t *testing.T) {
	h := needHost(t)
	for _, name := range []string{"", "a/b", "../x", "a b", "a\n", strings.Repeat("x", 129)} {
		if _, err := h.Create(name, nil, nil); !errors.Is(err, &fault.Fault{Code: fault.Cgroup}) {
			t.Errorf("%q: %v", name, err)
		}
		if err := Sweep(soon(t), h, name); err == nil {
			t.Errorf("%q was swept", name)
		}
	}
}

func TestDescriptorsAreReleased(t *testing.T) {
	h := needHost(t)
	before := descriptors(t)
	g := newGroup(t, h, nil)
	if g.DirFD() < 0 && len(g.TasksFDs()) == 0 {
		t.Error("nothing to attach by")
	}
	for _, fd := range append([]int{g.DirFD()}, g.TasksFDs()...) {
		if fd < 0 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d is inherited by execve: %v", fd, err)
		}
	}
	if err := g.Remove(soon(t)); err != nil {
		t.Fatal(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestSmallestMemory looks for the smallest limit at which programs can start
// in the group, because the kernel charges set-up (stacks, page tables,
// descriptors) to it. The contract accepts limits from 1 MiB.
func TestSmallestMemory(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		programs := map[string][]string{"dynamic": {"/bin/true"}}
		if path, ok := minimalProgram(t); ok {
			programs["static"] = []string{path}
		}
		if _, err := os.Stat("/bin/busybox"); err == nil {
			programs["busybox"] = []string{"/bin/busybox", "true"}
		}
		for kind, argv := range programs {
			smallest := 0
			for _, kib := range []int{2048, 1536, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 64} {
				g := newGroup(t, h, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(kib) << 10)}})
				err := start(t, g, "", argv...).Run()
				if removeErr := g.Remove(soon(t)); removeErr != nil {
					t.Fatal(removeErr)
				}
				if err != nil {
					t.Logf("%s: %d KiB: %v", kind, kib, err)
					break
				}
				smallest = kib
			}
			t.Logf("%s: smallest limit %d KiB", kind, smallest)
			if smallest == 0 || smallest > 1024 {
				t.Errorf("%s: does not start at 1 MiB", kind)
			}
		}
	}, Memory)
}

// minimalProgram is an ELF file of one page that calls exit(0).
func minimalProgram(t *testing.T) (string, bool) {
	if runtime.GOARCH != "amd64" {
		return "", false
	}
	header := []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x02\x00\x3e\x00\x01\x00\x00\x00\x78\x00\x40\x00\x00\x00\x00\x00" +
		"\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00" +
		"\x84\x00\x00\x00\x00\x00\x00\x00\x84\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x10\x00\x00\x00\x00\x00\x00")
	code := []byte("\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05\x90\x90\x90")
	path := filepath.Join(t.TempDir(), "exit0")
	if err := os.WriteFile(path, append(header, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, true
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func stats(t *testing.T, g *Group) Stats {
	t.Helper()
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kill(t *testing.T, g *Group) {
	t.Helper()
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := g.WaitEmpty(soon(t)); err != nil {
		t.Fatal(err)
	}
}

func show(n *int64) string {
	if n == nil {
		return "not measured"
	}
	return fmt.Sprint(*n)
}
