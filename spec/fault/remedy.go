package fault

import "syscall"

// errnoRemedy says what helps against an errno that tells more than the code does: a
// code names what was being done, and these stop whatever is done. Empty: none is known.
func errnoRemedy(code Code, errno syscall.Errno) string {
	switch errno {
	case syscall.EMFILE:
		return "Raise the limit of open files: `ulimit -n`, or LimitNOFILE= of the unit; capsule needs some 64."
	case syscall.ENFILE:
		return "The host has as many files open as fs.file-max allows."
	case syscall.ENOMEM:
		return "The host, or a control group around capsule, is out of memory."
	case syscall.EROFS:
		return "The file system there is read-only; choose another place."
	}
	switch code {
	case IO, OutputCapture:
		if errno == syscall.ENOSPC || errno == syscall.EDQUOT {
			return "Free space on its file system, or choose another place."
		}
	case Namespace, SystemCall:
		if errno == syscall.EAGAIN {
			return "The user has as many processes as it may: `ulimit -u`, TasksMax= of the unit, or kernel.pid_max."
		}
	case InvalidPath:
		return pathRemedy(errno)
	}
	return ""
}

// pathRemedy is for paths that are absolute and clean, which the kernel refused.
func pathRemedy(errno syscall.Errno) string {
	switch errno {
	case 0:
		return ""
	case syscall.ENOENT:
		return "Check the spelling: nothing is there."
	case syscall.EACCES, syscall.EPERM:
		return "Give this user access to it, or name another path."
	}
	return "The message gives the path and what the kernel answered."
}
