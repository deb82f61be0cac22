//go:build !linux

package main

import (
	"runtime"

	"github.com/capsule-run/capsule/spec/fault"
)

// becomeSubreaper is E2008: nothing here tells of children that changed their parent.
func becomeSubreaper() error {
	return fault.New(fault.Unsupported, "measure", "not supported on "+runtime.GOOS)
}
