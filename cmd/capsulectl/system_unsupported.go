//go:build !unix

package main

import (
	"os"
	"syscall"
)

// Write writes all of p.
func (d descriptor) Write(p []byte) (int, error) {
	if d == 2 {
		return os.Stderr.Write(p)
	}
	return os.Stdout.Write(p)
}

// window finds no terminal: tables and colours are for those of unix.
func window(any) (columns, rows int, ok bool) { return 0, 0, false }

// signalText knows no names.
func signalText(syscall.Signal) string { return "" }

// signalOf knows no names.
func signalOf(string) syscall.Signal { return 0 }

// kernelRelease is not known.
func kernelRelease() string { return "" }

// attributes are none: no patient is examined here.
func (patient) attributes() *syscall.SysProcAttr { return nil }
