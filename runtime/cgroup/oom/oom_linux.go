// Package oom opens the news of a control group's OOM killer.
package oom

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Names of the files that count the kills, as "oom_kill N" in one of their lines.
const (
	CountV1 = "memory.oom_control"
	CountV2 = "memory.events"
)

// Events opens what becomes readable when the OOM killer acts in the group of a directory
// with the memory controller, and may become readable otherwise: on v1 before the killer has
// chosen, on v2 with each count in memory.events. What is read from it says nothing; the
// count does. The reader is woken by Close too.
func Events(dir string, v2 bool) (*os.File, error) {
	if v2 {
		return inotify(dir + "/" + CountV2)
	}
	path := dir + "/" + CountV1
	control, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Cgroup, "open", err).WithPath(path)
	}
	defer unix.Close(control) // the registration outlives it
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fault.Wrap(fault.Cgroup, "eventfd", err)
	}
	f := os.NewFile(uintptr(fd), "oom events")
	path = dir + "/cgroup.event_control"
	if err := register(path, strconv.Itoa(fd)+" "+strconv.Itoa(control)); err != nil {
		return nil, errors.Join(fault.Wrap(fault.Cgroup, "write to", err).WithPath(path), f.Close())
	}
	return f, nil
}

func register(path, line string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(line))
	return err
}

func inotify(path string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "oom events")
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		return nil, errors.Join(fault.Wrap(fault.Cgroup, "watch", err).WithPath(path), f.Close())
	}
	return f, nil
}
