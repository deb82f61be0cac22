//go:build !linux

package main

import (
	"os"
	"path/filepath"
)

// isProgram says whether path, below root, leads to a file that somebody may execute.
func isProgram(root, path string) bool {
	info, err := os.Stat(filepath.Join(root, path))
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
