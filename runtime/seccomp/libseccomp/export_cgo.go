//go:build cgo && !noseccomp

package libseccomp

import (
	"fmt"
	"io"
	"os"

	binding "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
)

// export writes the program of a filter into an anonymous file and reads it
// back: the library before 2.6 exports to descriptors only.
func export(filter *binding.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, wrap("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "filter")
	defer file.Close()
	if err := filter.ExportBPF(file); err != nil {
		return nil, wrap("seccomp_export_bpf", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, wrap("read filter", err)
	}
	raw, err := io.ReadAll(file)
	if err != nil {
		return nil, wrap("read filter", err)
	}
	if n := len(raw) / bpf.InstructionSize; n > bpf.MaxInstructions {
		return nil, refuse("linux.seccomp.syscalls", fmt.Sprintf("the program has %d instructions; the kernel takes %d", n, bpf.MaxInstructions))
	}
	return raw, nil
}

// CallName is the name of a call by AUDIT_ARCH and number, or "". It has the
// type bpf.CallNamer.
func CallName(arch, number uint32) string {
	var a binding.ScmpArch
	switch arch {
	case bpf.ArchAMD64:
		a = binding.ArchAMD64
	case bpf.ArchI386:
		a = binding.ArchX86
	case bpf.ArchARM64:
		a = binding.ArchARM64
	case bpf.ArchARM:
		a = binding.ArchARM
	default:
		return ""
	}
	name, err := binding.ScmpSyscall(number).GetNameByArch(a)
	if err != nil {
		return ""
	}
	return name
}
