package task

import (
	"bytes"
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Walls are what the kernel says of the command's process, and the configuration asked
// for: a wall that a command makes for itself is none of ours. The zero value has none.
type Walls struct {
	// Namespaces that are not the shim's, which are the node's.
	Namespaces []specs.LinuxNamespaceType
	// ReadonlyRoot and Masked are of its mounts: each masked path that there is in its /proc
	// or /sys has a mount upon it.
	ReadonlyRoot, Masked bool
	// NoNewPrivs and Seccomp were in force when it ended, and its bounding set was empty
	// with NoCapabilities.
	NoNewPrivs, Seccomp, NoCapabilities bool
}

// walls reads them: what is built while the command waits for its start, and what it gets
// with its last step when it has ended and its number is still its own.
type walls struct {
	config *specs.Spec

	mu  sync.Mutex
	got Walls
	err error
}

// built reads namespaces and mounts.
func (w *walls) built(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dir := "/proc/" + strconv.Itoa(pid)
	for _, n := range w.config.Linux.Namespaces {
		name := nsFile(n.Type)
		theirs, err := os.Readlink(dir + "/ns/" + name)
		ours, bad := os.Readlink("/proc/thread-self/ns/" + name)
		switch {
		case err != nil || bad != nil:
			w.err = errors.Join(w.err, fault.Wrap(fault.MonitorFailed, "read namespace", errors.Join(err, bad)))
		case theirs != ours:
			w.got.Namespaces = append(w.got.Namespaces, n.Type)
		}
	}
	text, err := os.ReadFile(dir + "/mountinfo")
	if err != nil {
		w.err = errors.Join(w.err, fault.Wrap(fault.MonitorFailed, "read mounts", err))
		return
	}
	points := mountPoints(text)
	w.got.ReadonlyRoot = w.config.Root != nil && w.config.Root.Readonly && slices.Contains(strings.Split(points["/"], ","), "ro")
	w.got.Masked = len(w.config.Linux.MaskedPaths) > 0
	for _, p := range w.config.Linux.MaskedPaths {
		_, err := os.Lstat(dir + "/root" + path.Clean(p))
		if _, covered := points[path.Clean(p)]; !covered && err == nil {
			w.got.Masked = false
		}
	}
}

// nsFile is the name of a kind of namespace below /proc/PID/ns.
func nsFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.MountNamespace:
		return "mnt"
	case specs.NetworkNamespace:
		return "net"
	}
	return string(t)
}

// mountPoints are the options of each, as /proc/PID/mountinfo has them (proc(5)). Of mounts
// upon each other the last is on top.
func mountPoints(mountinfo []byte) map[string]string {
	all := map[string]string{}
	for line := range bytes.Lines(mountinfo) {
		if f := bytes.Split(line, []byte(" ")); len(f) > 5 {
			all[string(f[4])] = string(f[5])
		}
	}
	return all
}

// held reads /proc/PID/status. It is called more than once: the last reading before the
// process is waited for counts.
func (w *walls) held(pid int) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = errors.Join(w.err, fault.Wrap(fault.MonitorFailed, "read status", err))
		return
	}
	status := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			status[name] = strings.TrimSpace(value)
		}
	}
	p := w.config.Process
	w.got.NoNewPrivs = p.NoNewPrivileges && status["NoNewPrivs"] == "1"
	w.got.Seccomp = w.config.Linux.Seccomp != nil && status["Seccomp"] == "2"
	w.got.NoCapabilities = noCapabilities(p.Capabilities) && isZero(status["CapBnd"]) && isZero(status["CapEff"]) && isZero(status["CapPrm"])
}

func noCapabilities(c *specs.LinuxCapabilities) bool {
	return c == nil || len(c.Bounding)+len(c.Effective)+len(c.Permitted)+len(c.Inheritable)+len(c.Ambient) == 0
}

// isZero tells whether a set of capabilities is there and empty.
func isZero(hex string) bool { return hex != "" && strings.Trim(hex, "0") == "" }

// result is what was read, and why not all.
func (w *walls) result() (Walls, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got, w.err
}
