package main

import (
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// exitCodeOf is the exit status for an execution that could not be started.
func exitCodeOf(err error) int {
	f := fault.From(err, fault.IO)
	if f.Code != fault.CommandNotFound {
		return spec.ExitRefused
	}
	if errno, ok := f.Details["errno"]; ok {
		return spec.ExitStatusNotFound(errno)
	}
	if f.Errno != 0 {
		return spec.ExitStatusNotFound(f.Errno)
	}
	return spec.ExitNotFound
}
