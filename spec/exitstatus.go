package spec

import (
	"syscall"

	"github.com/capsule-run/capsule/spec/fault"
)

// The exit statuses that do not come from the payload. They follow timeout(1),
// env(1) and docker run.
const (
	ExitTimeout       = 124
	ExitRefused       = 125
	ExitNotExecutable = 126
	ExitNotFound      = 127
	ExitKilled        = 137 // a limit ended it: out of memory, output, CPU time
	ExitSignalBase    = 128 // plus the signal that ended it
)

// ExitStatus is the exit status of `capsulectl run` for a response. caller is the
// last signal that the program itself got, zero for none.
func ExitStatus(r *Response, caller syscall.Signal) int {
	switch r.Status {
	case StatusSuccess:
		if r.ExitCode != nil {
			return *r.ExitCode
		}
		// A success without a status would be invented; it is not the payload's 0.
		return ExitRefused
	case StatusTimeout:
		return ExitTimeout
	case StatusKilled:
		return exitStatusKilled(r, caller)
	}
	if r.Error != nil && r.Error.Code == string(fault.CommandNotFound) {
		return ExitStatusNotFound(r.Error.Details["errno"])
	}
	return ExitRefused
}

func exitStatusKilled(r *Response, caller syscall.Signal) int {
	switch r.Termination.Reason {
	case ReasonKilledByCaller:
		// The caller asked with a signal of its own; the SIGKILL that carried it
		// out says nothing.
		if caller != 0 {
			return ExitSignalBase + int(caller)
		}
	case ReasonPidsLimit, ReasonDiskLimit:
		// It failed by itself, of what a limit refused, and its status says how.
		if r.ExitCode != nil {
			return *r.ExitCode
		}
	case ReasonSignaled, ReasonSeccomp:
	default:
		return ExitKilled
	}
	if r.Signal != nil {
		return ExitSignalBase + *r.Signal
	}
	return ExitKilled
}

// ExitStatusNotFound is that of a command which could not be executed: it tells one that does not exist from one that cannot be
// executed by the errno of execve: a name, or a number after a trip through JSON.
func ExitStatusNotFound(errno any) int {
	switch e := errno.(type) {
	case nil:
		return ExitNotFound
	case string:
		if e == "ENOENT" || e == "" {
			return ExitNotFound
		}
	case float64:
		if syscall.Errno(e) == syscall.ENOENT {
			return ExitNotFound
		}
	case int:
		if syscall.Errno(e) == syscall.ENOENT {
			return ExitNotFound
		}
	case syscall.Errno:
		if e == syscall.ENOENT {
			return ExitNotFound
		}
	}
	return ExitNotExecutable
}
