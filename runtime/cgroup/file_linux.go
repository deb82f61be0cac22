package cgroup

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// buffer reads and writes kernel files with three system calls each. os.File
// would add an epoll registration per file, which costs more than the reading.
type buffer struct {
	fixed [4096]byte
}

// read returns all of a file.
func (b *buffer) read(path string) (string, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return b.readFD(fd)
}

func (b *buffer) readFD(fd int) (string, error) {
	var all []byte
	for {
		n, err := unix.Read(fd, b.fixed[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n == 0 {
			return string(all), nil
		}
		all = append(all, b.fixed[:n]...)
	}
}

// readAgain returns all of a file that holds counters, whatever was read of its
// descriptor before. The kernel makes such a file in one piece, so what does not
// fill the buffer is all of it.
func (b *buffer) readAgain(fd int) (string, error) {
	var all []byte
	for {
		n, err := unix.Pread(fd, b.fixed[:], int64(len(all)))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return "", err
		case n < len(b.fixed):
			return string(append(all, b.fixed[:n]...)), nil
		default:
			all = append(all, b.fixed[:n]...)
		}
	}
}

// write writes value to a file that exists.
func write(path, value string) error {
	fd, err := open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeFD(fd, value)
}

func writeFD(fd int, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			return err
		}
	}
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// pids parses cgroup.procs. Processes outside our pid namespace read as 0 and
// are left out.
func pids(content string) []int {
	var list []int
	for line := range strings.Lines(content) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
			list = append(list, pid)
		}
	}
	return list
}
