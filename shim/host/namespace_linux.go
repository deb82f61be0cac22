package host

import (
	"bytes"
	"os"
	"strconv"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// initialUserNS is the inode number of the initial user namespace
// (PROC_USER_INIT_INO in linux/proc_ns.h), fixed since Linux 3.8.
const initialUserNS = 0xEFFFFFFD

// namespaces finds out which namespaces the kernel has, and whether this
// process may map the ids of every slot.
func (p *prober) namespaces() error {
	// One walk to the directory instead of three: /proc/self is new to the
	// directory cache in every process.
	dir, err := unix.Open("/proc/self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Unsupported, "open /proc/self/ns", err).WithHint("capsule needs /proc mounted.")
	}
	defer unix.Close(dir)
	h := &p.facts.Host
	h.TimeNamespace = exists(dir, "time")
	h.CgroupNamespace = exists(dir, "cgroup")
	h.Rootless = !ownsSlots(dir)
	return nil
}

func exists(dir int, name string) bool {
	return unix.Faccessat(dir, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// ownsSlots says whether this process is root in the initial user namespace,
// which has every id, or in one that has those of all slots. Root of a
// rootless container is neither.
func ownsSlots(nsDir int) bool {
	if os.Geteuid() != 0 {
		return false
	}
	var st unix.Stat_t
	if unix.Fstatat(nsDir, "user", &st, 0) == nil && st.Ino == initialUserNS {
		return true
	}
	var buf [1024]byte
	return mapsSlots(buf[:readFile("/proc/self/uid_map", buf[:])]) && mapsSlots(buf[:readFile("/proc/self/gid_map", buf[:])])
}

// mapsSlots says whether one line of an id map (user_namespaces(7): first id
// inside, first id outside, length) holds the ids of every slot.
func mapsSlots(text []byte) bool {
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(string(f[0]), 10, 32)
		size, err2 := strconv.ParseUint(string(f[2]), 10, 32)
		if err1 == nil && err2 == nil && first <= firstSlotID && first+size >= firstSlotID+slots*bundle.IDRange {
			return true
		}
	}
	return false
}
