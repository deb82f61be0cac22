// Package layout is the one place that knows the paths of the state directory.
// Everything below it has mode 0700 or 0600.
package layout

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/capsule-run/capsule/spec/fault"
)

// State is the path of a state directory.
type State string

// Find is the state directory to use: the given one, else $CAPSULE_STATE,
// else /run/capsule as root, else $XDG_RUNTIME_DIR/capsule, else a directory
// below the temporary directory that is named after the user.
func Find(given string) (State, error) {
	if given == "" {
		given = os.Getenv("CAPSULE_STATE")
	}
	if given != "" {
		path, err := filepath.Abs(given)
		if err != nil {
			return "", fault.Wrap(fault.IO, "find state directory", err)
		}
		return State(path), nil
	}
	if os.Geteuid() == 0 {
		return "/run/capsule", nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		if _, err := os.Stat(dir); err == nil {
			return State(filepath.Join(dir, "capsule")), nil
		}
	}
	return State(filepath.Join(os.TempDir(), "capsule-"+strconv.Itoa(os.Geteuid()))), nil
}

// Executions is the directory of the executions.
func (s State) Executions() string { return string(s) + "/executions" }

// Seccomp is the cache of compiled filters.
func (s State) Seccomp() string { return string(s) + "/seccomp" }

// Socket is the supervisor's API.
func (s State) Socket() string { return string(s) + "/capsuled.sock" }

// Lock is held by the one capsuled of this state directory.
func (s State) Lock() string { return string(s) + "/capsuled.lock" }

// History is the database of ended executions. It outlives the host's boot when
// the state directory is the usual one, and stands beside it otherwise.
func (s State) History() string {
	base := string(s)
	if given := os.Getenv("CAPSULE_STATE"); given == "" {
		switch {
		case s == "/run/capsule":
			base = "/var/lib/capsule"
		case filepath.Dir(base) == os.Getenv("XDG_RUNTIME_DIR"):
			if home := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(home) {
				base = filepath.Join(home, "capsule")
			} else if home, err := os.UserHomeDir(); err == nil {
				base = filepath.Join(home, ".local/state/capsule")
			}
		}
	}
	return base + "/history.db"
}

// Execution is the directory of one execution.
func (s State) Execution(id string) Dir { return Dir(s.Executions() + "/" + id) }

// Gone is where the directory of an execution is moved before it is removed, so
// that nobody meets one that is half removed.
func (s State) Gone(id string) string { return s.Executions() + "/gone-" + id }

// Dir is the directory of one execution.
type Dir string

// InDirectory is the directory that a descriptor of this process refers to. Its
// paths are short enough for socket addresses.
func InDirectory(fd int) Dir { return Dir("/proc/self/fd/" + strconv.Itoa(fd)) }

// Bundle is the OCI bundle.
func (d Dir) Bundle() string { return string(d) + "/bundle" }

// Request is the resolved request.
func (d Dir) Request() string { return string(d) + "/request.json" }

// Record is what its supervisor knows of the execution. A foreground execution
// without a daemon has none: nobody asks for it after its caller is gone.
func (d Dir) Record() string { return string(d) + "/execution.json" }

// Result is the final record; its presence means that the execution has ended.
func (d Dir) Result() string { return string(d) + "/result.json" }

// Shim identifies the shim process.
func (d Dir) Shim() string { return string(d) + "/shim.json" }

// Cgroup names the cgroup of an execution whose sandbox was built before it had
// its id. Without this file it is named after the id.
func (d Dir) Cgroup() string { return string(d) + "/cgroup" }

// Socket is the shim's API.
func (d Dir) Socket() string { return string(d) + "/shim.sock" }

// Stdout and Stderr hold kept output that does not fit into memory.
func (d Dir) Stdout() string { return string(d) + "/stdout" }

// Stderr is as Stdout.
func (d Dir) Stderr() string { return string(d) + "/stderr" }

// Times is when the bytes of kept output came: the encoded times.Index of stdout,
// then that of stderr. It is written before Result.
func (d Dir) Times() string { return string(d) + "/output.times" }

// Rootfs is where the root of the bundle is mounted, inside the sandbox alone.
// It is made before anything else of a sandbox and removed after everything: as
// long as it stands, something may be left.
func (d Dir) Rootfs() string { return d.Bundle() + "/rootfs" }

// Log is what the shim prints when it panics. Without it no shim has begun: see NewLog.
func (d Dir) Log() string { return string(d) + "/shim.log" }

// NewLog is Log as a daemon makes it. The shim renames it first of all. A daemon
// that is killed before there is a shim leaves an execution that waits, and that
// the next one starts.
func (d Dir) NewLog() string { return string(d) + "/shim.log.new" }

// WriteFile makes a file with mode 0600 appear whole or not at all. It does
// not sync: the state directory does not outlive the kernel (docs/decisions/0002).
// Callers wait for it, so it makes no calls that an os.File would make for its poller.
func WriteFile(path string, data []byte) error {
	temporary := path + ".new"
	if err := write(temporary, data); err != nil {
		return fault.Wrap(fault.IO, "write", err).WithPath(path)
	}
	if err := syscall.Rename(temporary, path); err != nil {
		return fault.Wrap(fault.IO, "rename", err).WithPath(path)
	}
	return nil
}

// write makes or replaces a file.
func write(path string, data []byte) error {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_TRUNC | syscall.O_CLOEXEC
	fd, err := syscall.Open(path, flags, 0o600)
	for err == syscall.EINTR { // by a signal of Go's scheduler, on a file system that is interrupted
		fd, err = syscall.Open(path, flags, 0o600)
	}
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n, err := syscall.Write(fd, data)
		if err != nil && err != syscall.EINTR {
			syscall.Close(fd)
			return err
		}
		data = data[max(n, 0):]
	}
	return syscall.Close(fd)
}
