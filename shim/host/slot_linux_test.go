package host

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

func TestSlotsAreDistinct(t *testing.T) {
	dir := t.TempDir()
	seen := map[uint32]bool{}
	for range 100 {
		base, lock, err := allocate(dir, slots-10)
		must(t, err)
		defer lock.Close()
		if seen[base] || base < firstSlotID || base+bundle.IDRange > 0x7ffe0000 || base%bundle.IDRange != 0 {
			t.Fatalf("slot %#x", base)
		}
		seen[base] = true
	}
}

func TestSlotIsFreeAfterTheLastClose(t *testing.T) {
	dir := t.TempDir()
	base, lock, err := allocate(dir, 7)
	must(t, err)
	// A child that inherits the descriptor keeps the slot after we closed ours.
	cmd := exec.Command("cat")
	cmd.ExtraFiles = []*os.File{lock}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	must(t, lock.Close())
	other, lock2, err := allocate(dir, 7)
	must(t, err)
	defer lock2.Close()
	if other == base {
		t.Error("the slot of a running child was given out")
	}
	must(t, stdin.Close())
	must(t, cmd.Wait())
	again, lock3, err := allocate(dir, 7)
	must(t, err)
	defer lock3.Close()
	if again != base {
		t.Errorf("got %#x, want %#x: the slot of a dead child is free", again, base)
	}
}

func TestEverySlotTaken(t *testing.T) {
	dir := t.TempDir()
	_, all, err := allocate(dir, 0)
	must(t, err)
	defer all.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: 0, Len: slots}
	must(t, setLock(int(all.Fd()), &lock))
	if _, _, err := AllocateSlot(dir); !errors.Is(err, &fault.Fault{Code: fault.IDMapping}) {
		t.Errorf("got %v, want E2006", err)
	}
}

func TestSlotFileIsNotALink(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("/etc/passwd", dir+"/slots"))
	if _, _, err := AllocateSlot(dir); !errors.Is(err, &fault.Fault{Code: fault.IO}) {
		t.Errorf("got %v, want E6001", err)
	}
	if _, _, err := AllocateSlot(dir + "/missing"); !errors.Is(err, &fault.Fault{Code: fault.IO}) {
		t.Errorf("got %v, want E6001", err)
	}
}

func BenchmarkAllocateSlot(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		_, lock, err := AllocateSlot(dir)
		if err != nil {
			b.Fatal(err)
		}
		lock.Close()
	}
}

// TestLockRange: a bundle's own ids are its own while it runs, and the next run of it may
// come before the one before has let go.
func TestLockRange(t *testing.T) {
	dir := t.TempDir()
	ids := []specs.LinuxIDMapping{{HostID: firstSlotID + 5*bundle.IDRange, Size: bundle.IDRange}}
	running, err := LockRange(dir, ids)
	must(t, err)
	if lock, err := LockRange(dir, ids); !errors.Is(err, &fault.Fault{Code: fault.IDMapping}) {
		t.Errorf("%v, %v; want E2006", lock, err)
	}
	go func() {
		time.Sleep(lettingGo / 10)
		running.Close()
	}()
	next, err := LockRange(dir, ids)
	must(t, err)
	must(t, next.Close())
	if lock, err := LockRange(dir, []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}); lock != nil || err != nil {
		t.Errorf("ids of nobody: %v, %v", lock, err)
	}
}
