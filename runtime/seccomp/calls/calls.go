// Package calls names system calls and says which of their arguments are worth
// a record. It has no tables that a start would have to build: every shim links it.
package calls

import (
	"strconv"
	"strings"
)

// The AUDIT_ARCH values of tables that are not the machine's own.
const (
	archI386 = 0x40000003
	archARM  = 0x40000028
	x32Bit   = 0x40000000
)

// Name is the name of a system call by the AUDIT_ARCH of its table and its
// number, or "syscall N" where it has none. A call through a table that is not
// the machine's own is "i386 call N", "x32 call N" or "arm call N".
func Name(arch, number uint32) string {
	n := strconv.FormatUint(uint64(number), 10)
	switch {
	case arch == archI386:
		return "i386 call " + n
	case arch == archARM:
		return "arm call " + n
	case number&x32Bit != 0 && number>>31 == 0:
		return "x32 call " + strconv.FormatUint(uint64(number&^x32Bit), 10)
	}
	rest := names
	for ; number > 0; number-- {
		i := strings.IndexByte(rest, ' ')
		if i < 0 {
			return "syscall " + n
		}
		rest = rest[i+1:]
	}
	name, _, _ := strings.Cut(rest, " ")
	if name == "" || name == "-" {
		return "syscall " + n
	}
	return name
}

// Known tells whether the machine's own table has a system call of that name.
func Known(name string) bool {
	return name != "" && name != "-" && !strings.Contains(name, " ") && strings.Contains(" "+names+" ", " "+name+" ")
}

// Argument is an argument of a system call that holds a number, not an address.
type Argument struct {
	// Index is its place, from 0.
	Index int
	// Name is what the manual page calls it.
	Name string
}

// Arguments are those of a call that explain a refusal and give nothing of the
// process away. None for most calls.
func Arguments(name string) []Argument {
	switch name {
	case "clone", "unshare", "memfd_create", "userfaultfd", "memfd_secret":
		return []Argument{{0, "flags"}}
	case "setns":
		return []Argument{{1, "nstype"}}
	case "socket", "socketpair":
		return []Argument{{0, "domain"}, {1, "type"}, {2, "protocol"}}
	case "ioctl":
		return []Argument{{1, "request"}}
	case "personality":
		return []Argument{{0, "persona"}}
	case "open":
		return []Argument{{1, "flags"}, {2, "mode"}}
	case "mknodat":
		return []Argument{{2, "mode"}}
	case "openat":
		return []Argument{{2, "flags"}, {3, "mode"}}
	case "chmod", "fchmod", "creat", "mknod":
		return []Argument{{1, "mode"}}
	case "fchmodat", "fchmodat2":
		return []Argument{{2, "mode"}}
	case "ptrace", "keyctl", "bpf", "prctl", "arch_prctl", "kcmp", "reboot", "quotactl", "syslog":
		return []Argument{{0, "operation"}}
	case "mount":
		return []Argument{{3, "flags"}}
	case "umount2", "fsopen":
		return []Argument{{1, "flags"}}
	case "open_tree", "mount_setattr":
		return []Argument{{2, "flags"}}
	}
	return nil
}
