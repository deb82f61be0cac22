package resources

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// loadTries is how often a filter is loaded that a signal interrupts.
const loadTries = 20

// attach puts a device filter on a v2 directory, beside those of its parents: all have
// to agree. The kernel keeps it as long as the directory is there.
func attach(dir string, code []byte) error {
	fail := func(op string, err error) error {
		return fault.Wrap(fault.Cgroup, op, err).WithField("linux.resources.devices").WithPath(dir)
	}
	// The kernel is told of both by number, which keeps neither where it is.
	license := &[4]byte{'G', 'P', 'L'}
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(license)
	pins.Pin(unsafe.SliceData(code))
	// union bpf_attr of BPF_PROG_LOAD as far as it is used: bpf(2).
	load := struct {
		kind, count    uint32
		code, license  uint64
		level, size    uint32
		log            uint64
		version, flags uint32
		name           [16]byte
		ifindex        uint32
		expected       uint32
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / 8), code: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(code)))),
		license: uint64(uintptr(unsafe.Pointer(license))), expected: unix.BPF_CGROUP_DEVICE}
	program, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	// A signal stops the kernel's check of the program, and Go's scheduler sends them.
	for tries := 1; errno == unix.EAGAIN && tries < loadTries; tries++ {
		program, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	}
	if errno != 0 {
		return fail("load the device filter", errno)
	}
	defer unix.Close(int(program))
	target, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(target)
	to := struct{ target, program, kind, flags uint32 }{uint32(target), uint32(program), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to)); errno != 0 {
		return fail("attach the device filter", errno)
	}
	return nil
}
