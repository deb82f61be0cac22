package attack

import "golang.org/x/sys/unix"

const sysModifyLDT = unix.SYS_MODIFY_LDT

// Legacy are attacks with system calls that newer architectures lack.
var Legacy = map[string][]call{
	"setuid-chmod": {{unix.SYS_CHMOD, []any{"/host/file", 0o4755}}},
	"setuid-open":  {{unix.SYS_OPEN, []any{"/host/open", unix.O_CREAT | unix.O_WRONLY, 0o4755}}},
	"setuid-creat": {{unix.SYS_CREAT, []any{"/host/creat", 0o4755}}},
	"setuid-mknod": {{unix.SYS_MKNOD, []any{"/host/mknod", unix.S_IFREG | 0o4755, 0}}},
	"mknod-legacy": {{unix.SYS_MKNOD, []any{"/tmp/device", unix.S_IFBLK | 0o666, 0x700}}},
}
