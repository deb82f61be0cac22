package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// memoryName is how the kernel calls a copy of this program in memory.
const memoryName = "capsule-oci-sealed"

// sealed tells whether this program runs from such a copy.
func sealed() bool {
	self, err := os.Readlink("/proc/self/exe")
	return err == nil && strings.HasPrefix(self, "/memfd:"+memoryName)
}

// seal executes a copy of this program that nobody can write to. Whatever runs in a
// container before its command is executed has this program as /proc/PID/exe, and a
// container without a user namespace of its own has the right to write to the host's
// files once it holds a descriptor of one (CVE-2019-5736).
func seal() error {
	if sealed() {
		return nil
	}
	fail := func(op string, err error) error { return fault.Wrap(fault.SystemCall, op, err) }
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return fail("open the program", err)
	}
	defer program.Close()
	const noexecAware = 0x10 // MFD_EXEC, Linux 6.3: without it vm.memfd_noexec decides
	fd, err := unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|noexecAware)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return fail("memfd_create", err)
	}
	memory := os.NewFile(uintptr(fd), memoryName)
	defer memory.Close()
	if _, err := io.Copy(memory, program); err != nil {
		return fail("copy the program", err)
	}
	if _, err := unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return fail("seal the program", err)
	}
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fail("find the program", err)
	}
	args := append([]string{name}, os.Args[1:]...)
	err = syscall.Exec("/proc/self/fd/"+itoa(int(memory.Fd())), args, os.Environ())
	return fail("execute the copy", errors.Join(err))
}
