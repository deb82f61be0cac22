package main

import (
	"syscall"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// The exit statuses that do not come from the payload. They follow timeout(1),
// env(1) and docker run.
const (
	exitTimeout       = 124
	exitRefused       = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	exitKilled        = 137 // a limit ended it: out of memory, output, CPU time
	exitSignalBase    = 128 // plus the signal that ended it
)

// exitCode is the exit status of `capsulectl run` for a response. caller is the
// last signal that capsulectl itself got, zero for none.
func exitCode(r *spec.Response, caller syscall.Signal) int {
	switch r.Status {
	case spec.StatusSuccess:
		if r.ExitCode != nil {
			return *r.ExitCode
		}
		// A success without a status would be invented; it is not the payload's 0.
		return exitRefused
	case spec.StatusTimeout:
		return exitTimeout
	case spec.StatusKilled:
		return exitCodeKilled(r, caller)
	}
	if r.Error != nil && r.Error.Code == string(fault.CommandNotFound) {
		return exitCodeNotFound(r.Error.Details["errno"])
	}
	return exitRefused
}

func exitCodeKilled(r *spec.Response, caller syscall.Signal) int {
	switch r.Termination.Reason {
	case spec.ReasonKilledByCaller:
		// The caller asked with a signal of its own; the SIGKILL that carried it
		// out says nothing.
		if caller != 0 {
			return exitSignalBase + int(caller)
		}
	case spec.ReasonPidsLimit, spec.ReasonDiskLimit:
		// It failed by itself, of what a limit refused, and its status says how.
		if r.ExitCode != nil {
			return *r.ExitCode
		}
	case spec.ReasonSignaled, spec.ReasonSeccomp:
	default:
		return exitKilled
	}
	if r.Signal != nil {
		return exitSignalBase + *r.Signal
	}
	return exitKilled
}

// exitCodeNotFound tells a command that does not exist from one that cannot be
// executed by the errno of execve: a name, or a number after a trip through JSON.
func exitCodeNotFound(errno any) int {
	switch e := errno.(type) {
	case nil:
		return exitNotFound
	case string:
		if e == "ENOENT" || e == "" {
			return exitNotFound
		}
	case float64:
		if syscall.Errno(e) == syscall.ENOENT {
			return exitNotFound
		}
	case int:
		if syscall.Errno(e) == syscall.ENOENT {
			return exitNotFound
		}
	case syscall.Errno:
		if e == syscall.ENOENT {
			return exitNotFound
		}
	}
	return exitNotExecutable
}

// exitCodeOf is the exit status for an execution that could not be started.
func exitCodeOf(err error) int {
	f := fault.From(err, fault.IO)
	if f.Code != fault.CommandNotFound {
		return exitRefused
	}
	if errno, ok := f.Details["errno"]; ok {
		return exitCodeNotFound(errno)
	}
	if f.Errno != 0 {
		return exitCodeNotFound(f.Errno)
	}
	return exitNotFound
}
