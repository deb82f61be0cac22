package host

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec/fault"
)

// The host ids from 0x70000000 to 0x7ffdffff are divided into slots of
// bundle.IDRange ids. They lie above what distributions, container engines
// (/etc/subuid) and systemd (up to 0x6fffffff) hand out, and below 2^31, which
// some file systems and tools cannot represent.
const (
	firstSlotID = 0x70000000
	slots       = (0x7ffe0000 - firstSlotID) / bundle.IDRange
)

// slotsName is the file of the state directory whose byte n is locked while
// slot n is in use.
const slotsName = "slots"

// AllocateSlot takes a range of bundle.IDRange host ids that no other
// execution of this state directory owns, and returns its first id. The range
// is taken for as long as any copy of the returned file is open: the sandbox's
// init inherits one, so that ids are not given out again while a process may
// still run under them, whatever dies first. A lock of an open file
// description needs no clean-up after a crash.
//
// The start of the search is spread over the range, so that ids are reused
// late. E2006 when every slot is in use, E6001 when the file cannot be used.
func AllocateSlot(stateDir string) (base uint32, lock *os.File, err error) {
	return allocate(stateDir, uint32(time.Now().UnixNano()/1000%slots))
}

func allocate(stateDir string, start uint32) (uint32, *os.File, error) {
	path := filepath.Join(stateDir, slotsName)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, nil, fault.Wrap(fault.IO, "open slots", err).WithPath(path)
	}
	for i := range uint32(slots) {
		n := (start + i) % slots
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: int64(n), Len: 1}
		switch err := setLock(fd, &lock); err {
		case nil:
			return firstSlotID + n*bundle.IDRange, os.NewFile(uintptr(fd), path), nil
		case unix.EAGAIN, unix.EACCES:
		default:
			unix.Close(fd)
			return 0, nil, fault.Wrap(fault.IO, "lock slot", err).WithPath(path)
		}
	}
	unix.Close(fd)
	return 0, nil, fault.New(fault.IDMapping, "allocate host ids", "every slot is in use").WithPath(path)
}

func setLock(fd int, lock *unix.Flock_t) error {
	for {
		if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, lock); err != unix.EINTR {
			return err
		}
	}
}

// lettingGo is how long an execution may take from its verdict to the end of its processes.
const lettingGo = time.Second

// awaitLock takes a lock, from one who is letting go of it too.
func awaitLock(fd int, lock *unix.Flock_t) bool {
	for end := time.Now().Add(lettingGo); setLock(fd, lock) != nil; time.Sleep(lettingGo / 100) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// LockRange takes the slots that a range of host ids lies in, for a bundle that
// brings its own: E2006 when an execution of this state directory owns one of
// them, also a moment later: one that has told its verdict takes a while to let go.
// Ids outside the slots are nobody's here; the file is nil then.
func LockRange(stateDir string, ranges []specs.LinuxIDMapping) (*os.File, error) {
	var file *os.File
	for _, r := range ranges {
		for n := range uint64(slots) {
			first := uint64(firstSlotID) + n*bundle.IDRange
			if uint64(r.HostID)+uint64(r.Size) <= first || uint64(r.HostID) >= first+bundle.IDRange {
				continue
			}
			if file == nil {
				name := filepath.Join(stateDir, slotsName)
				fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
				if err != nil {
					return nil, fault.Wrap(fault.IO, "open slots", err).WithPath(name)
				}
				file = os.NewFile(uintptr(fd), name)
			}
			lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: int64(n), Len: 1}
			if !awaitLock(int(file.Fd()), &lock) {
				file.Close()
				return nil, fault.New(fault.IDMapping, "take host ids", "an execution that runs owns host id "+strconv.FormatUint(first, 10)).
					WithField("linux.uidMappings").WithHint("Wait until it has ended, or map other host ids.")
			}
		}
	}
	return file, nil
}
