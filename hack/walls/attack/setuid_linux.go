package attack

import "golang.org/x/sys/unix"

// Setuid are attempts to leave a set-user-id file on the host, below a
// writable bind whose owner, on the host, is somebody worth being.
var Setuid = map[string][]call{
	"setuid-fchmodat":  {{unix.SYS_FCHMODAT, []any{cwd, "/host/file", 0o4755}}},
	"setgid-fchmodat":  {{unix.SYS_FCHMODAT, []any{cwd, "/host/group", 0o2755}}},
	"setuid-fchmodat2": {{unix.SYS_FCHMODAT2, []any{cwd, "/host/file", 0o4755, 0}}},
	"setuid-fchmod": {{unix.SYS_OPENAT, []any{cwd, "/host/file", unix.O_RDONLY, 0}},
		{unix.SYS_FCHMOD, []any{result(0), 0o4755}}},
	"setuid-openat":  {{unix.SYS_OPENAT, []any{cwd, "/host/openat", unix.O_CREAT | unix.O_WRONLY, 0o4755}}},
	"setuid-tmpfile": {{unix.SYS_OPENAT, []any{cwd, "/host", unix.O_TMPFILE | unix.O_WRONLY, 0o4755}}},
	"setuid-openat2": {{unix.SYS_OPENAT2, []any{cwd, "/host/openat2", words(unix.O_CREAT|unix.O_WRONLY, 0o4755, 0), 24}}},
	"setuid-mknodat": {{unix.SYS_MKNODAT, []any{cwd, "/host/mknodat", unix.S_IFREG | 0o4755, 0}}},
}

// Harmless are attempts that must fail, or that the kernel makes harmless.
var Harmless = map[string][]call{
	"setuid-mkdirat": {{unix.SYS_MKDIRAT, []any{cwd, "/host/mkdirat", 0o6755}}},
	"setcap":         {{unix.SYS_SETXATTR, []any{"/host/file", "security.capability", words(0x0000000202000000, 0, 0)[:20], 20, 0}}},
	"chown-up":       {{unix.SYS_FCHOWNAT, []any{cwd, "/host/file", 0, 0, 0}}},
	"sticky":         {{unix.SYS_FCHMODAT, []any{cwd, "/host/sticky", 0o1777}}},
	"ordinary":       {{unix.SYS_FCHMODAT, []any{cwd, "/host/ordinary", 0o777}}},
}
