//go:build unix

package config

import (
	"io/fs"
	"os"
	"syscall"
)

// ours says whether nobody but root and this user owns a file.
func ours(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && (owner.Uid == 0 || int(owner.Uid) == os.Geteuid())
}
