package cgroup

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Prepare makes the v2 controllers available where groups are made. It is
// idempotent, safe among any number of processes, and does nothing on v1 or
// when an earlier call, of any process, has done it. Create calls it by itself.
//
// It may move processes of a delegated cgroup, this one among them, to the
// leaf capsule.leaf in it. A controller that cannot be had is no error: it is
// marked as not usable, with the reason.
func (h *Host) Prepare() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.unified()
	if t == nil || len(t.pending) == 0 {
		return nil
	}
	// The lock is on the directory itself, so that it needs no file and no
	// agreement on where such a file would be; it goes with the process.
	lock, err := open(t.own, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fault.Wrap(fault.Cgroup, "open the own cgroup", err).WithPath(t.own)
	}
	defer unix.Close(lock)
	if err := flock(lock); err != nil {
		return fault.Wrap(fault.Cgroup, "lock the own cgroup", err).WithPath(t.own)
	}
	dir, lacking := h.enableSomewhere(t)
	t.parent, t.pending = dir, nil
	var usable []string
	for _, name := range t.controllers {
		if err, ok := lacking[name]; ok {
			h.refuse(name, "the controller "+name+" cannot be enabled in "+dir+": "+err.Error())
			continue
		}
		usable = append(usable, name)
		h.controllers[name] = Controller{Usable: true, Version: 2, Parent: dir}
	}
	t.controllers = usable
	return nil
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// enableSomewhere enables the controllers of t in its own cgroup or, when that
// has processes, where doc.go says. It returns the directory and what is lacking.
func (h *Host) enableSomewhere(t *tree) (string, map[string]error) {
	if !t.settled {
		// This process is in its own cgroup and is not asked to leave it, so
		// that cgroup cannot give controllers to children.
		if dir, lacking := climb(t); dir != "" {
			pin(dir, t.controllers)
			return dir, lacking
		}
	}
	lacking := enable(t.mount, t.own, t.controllers)
	if !busy(lacking) {
		return t.own, lacking
	}
	err := evacuate(t.own, func() bool {
		lacking = enable(t.mount, t.own, t.controllers)
		return !busy(lacking)
	})
	for name, cause := range lacking {
		lacking[name] = errors.Join(cause, err)
	}
	if !h.Delegated {
		pin(t.own, t.controllers)
	}
	return t.own, lacking
}

// climb looks for the nearest ancestor of the own cgroup that can give the
// controllers to children. Empty: none, or a limit would be left behind.
func climb(t *tree) (string, map[string]error) {
	for dir := t.own; dir != t.mount && !limited(dir); {
		dir = filepath.Dir(dir)
		if !writable(dir) || !writable(dir+"/cgroup.procs") {
			break
		}
		if lacking := enable(t.mount, dir, t.controllers); len(lacking) == 0 {
			return dir, lacking
		}
	}
	return "", nil
}

// pin keeps the controllers of a cgroup that belongs to systemd: systemd takes
// back those that none of its units needs whenever it looks at the cgroup again,
// under the feet of running groups, but the kernel refuses that (EBUSY) while a
// child passes them on. The child is empty and stays.
func pin(dir string, controllers []string) {
	// Failure leaves the controllers usable, only less firmly.
	_ = unix.Mkdir(dir+"/"+pinName, 0o755)
	enableOne(dir+"/"+pinName, controllers)
}

// enable writes cgroup.subtree_control from the root of the tree down to dir,
// and returns the controllers that dir's children lack after that, with what
// the kernel answered.
func enable(mount, dir string, controllers []string) map[string]error {
	relative := strings.TrimPrefix(dir, mount)
	at := mount
	lacking := enableOne(at, controllers)
	for part := range strings.SplitSeq(strings.Trim(relative, "/"), "/") {
		if part == "" {
			continue
		}
		at += "/" + part
		// Ancestors of a delegated cgroup cannot be written and need not be,
		// so only the last answer counts.
		lacking = enableOne(at, controllers)
	}
	return lacking
}

func enableOne(dir string, controllers []string) map[string]error {
	lacking := map[string]error{}
	var b buffer
	given, err := b.read(dir + "/cgroup.subtree_control")
	given = " " + strings.TrimSpace(given) + " "
	var missing []string
	for _, name := range controllers {
		if !strings.Contains(given, " "+name+" ") {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err == nil && occupied(&b, dir) {
		err = unix.EBUSY
	}
	for _, name := range missing {
		cause := err
		if cause == nil {
			// One at a time: a write of several is refused as a whole.
			cause = write(dir+"/cgroup.subtree_control", "+"+name)
		}
		if cause != nil {
			lacking[name] = cause
		}
	}
	// A process that arrived meanwhile made it a thread root after all.
	if err == nil && len(lacking) < len(missing) && occupied(&b, dir) {
		for _, name := range missing {
			if lacking[name] == nil {
				_ = write(dir+"/cgroup.subtree_control", "-"+name)
			}
			lacking[name] = unix.EBUSY
		}
	}
	return lacking
}

// occupied is true when dir has processes of its own and is not the root, which
// alone may have them. The kernel refuses memory and io there with EBUSY, but
// takes pids and cpu and makes dir a thread root by that, whose children are of
// type "domain invalid" and accept nobody.
func occupied(b *buffer, dir string) bool {
	if !exists(dir + "/cgroup.type") {
		return false
	}
	content, err := b.read(dir + "/cgroup.procs")
	return err == nil && content != ""
}

// busy: the kernel's answer when a cgroup has processes of its own.
func busy(lacking map[string]error) bool {
	for _, err := range lacking {
		if errors.Is(err, unix.EBUSY) {
			return true
		}
	}
	return false
}

// limited is true when dir bounds what is in it, so that going above it
// would leave a limit behind.
func limited(dir string) bool {
	var b buffer
	for _, file := range []string{"memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max", "io.max"} {
		content, err := b.read(dir + "/" + file)
		if err != nil {
			continue
		}
		if content = strings.TrimSpace(content); content != "" && !strings.HasPrefix(content, "max") {
			return true
		}
	}
	return false
}

// evacuate moves the processes of dir to its leaf until done says that it
// suffices. Processes that fork meanwhile need another round.
func evacuate(dir string, done func() bool) error {
	leaf := dir + "/" + leafName
	if err := unix.Mkdir(leaf, 0o755); err != nil && err != unix.EEXIST {
		return fault.Wrap(fault.Cgroup, "mkdir", err).WithPath(leaf)
	}
	var b buffer
	var failed error
	for range 20 {
		content, err := b.read(dir + "/cgroup.procs")
		if err != nil {
			return fault.Wrap(fault.Cgroup, "read the processes of", err).WithPath(dir)
		}
		failed = nil
		for _, pid := range pids(content) {
			err := write(leaf+"/cgroup.procs", strconv.Itoa(pid))
			if err != nil && err != unix.ESRCH {
				failed = fault.Wrap(fault.Cgroup, "move process "+strconv.Itoa(pid)+" to", err).WithPath(leaf)
			}
		}
		if done() {
			return nil
		}
	}
	return failed
}
