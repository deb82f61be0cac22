package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
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
				// The kernel counts the refusal before a fork beside it has raised
				// the peak, and two that raise it may leave the lower value.
				if s.PidsPeak != nil && (*s.PidsPeak < 5 || *s.PidsPeak > 10) {
					t.Errorf("peak %d, want 10 or little less", *s.PidsPeak)
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
	// Fewer are those of an earlier test that were collected as garbage meanwhile.
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// Stats tells the same from the descriptors that Create opened, while others ask
// too, and without them; and nothing of a group that somebody else has removed.
func TestStatsByDescriptorAndByPath(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		g := newGroup(t, h, nil)
		if err := start(t, g, "spin").Run(); err != nil {
			t.Fatal(err)
		}
		if len(g.kept.files) == 0 {
			t.Fatal("no file is kept open")
		}
		kill(t, g)
		// The last bit of CPU time is counted when the process has already been waited for.
		kept, byPath := stats(t, g), stats(t, &Group{members: g.members})
		for end := time.Now().Add(10 * time.Second); !reflect.DeepEqual(kept, byPath) && time.Now().Before(end); {
			kept, byPath = stats(t, g), stats(t, &Group{members: g.members})
		}
		if kept.CPU == nil || *kept.CPU == 0 || !reflect.DeepEqual(kept, byPath) {
			t.Errorf("by descriptor %+v, by path %+v", kept, byPath)
		}
		var asked sync.WaitGroup
		for range 8 {
			asked.Go(func() {
				for range 20 {
					if s, err := g.Stats(); err != nil || s.CPU == nil || *s.CPU < *kept.CPU {
						t.Errorf("cpu %v after %v, %v", s.CPU, kept.CPU, err)
					}
				}
			})
		}
		g.Close()
		asked.Wait()
		if len(g.kept.files) != 0 {
			t.Errorf("%d files are open after Close", len(g.kept.files))
		}
		g.keep()
		for _, path := range g.Paths() {
			if err := unix.Rmdir(path); err != nil {
				t.Fatal(err)
			}
		}
		if gone := stats(t, g); gone != (Stats{}) {
			t.Errorf("of a group that is gone: %+v", gone)
		}
	}, CPU)
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
