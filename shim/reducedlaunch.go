//go:build linux || darwin

package shim

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// Descriptors of a launcher besides 0, 1 and 2.
const (
	reducedOrderFD  = 3
	reducedReportFD = 4
)

// reducedOrder is what a launcher becomes. Its environment is the command's already.
type reducedOrder struct {
	Args    []string            `json:"args"`
	Env     []string            `json:"env"`
	Dir     string              `json:"dir"`
	Rlimits []specs.POSIXRlimit `json:"rlimits"`
}

// reducedReport is why it did not.
type reducedReport struct {
	Code  fault.Code `json:"code"`
	Op    string     `json:"op"`
	Field string     `json:"field"`
	Path  string     `json:"path"`
	Errno int        `json:"errno"`
}

// EnterReduced makes this process the command that the order on descriptor 3 names: no
// system lets a parent set the limits of a child between fork and exec but by code
// that runs there. It returns only when that failed, which the report has.
func EnterReduced() {
	unix.CloseOnExec(reducedOrderFD)
	unix.CloseOnExec(reducedReportFD)
	report := enter()
	f := os.NewFile(reducedReportFD, "report")
	_ = json.NewEncoder(f).Encode(report) // without a reader nobody is left to tell
}

func enter() reducedReport {
	var o reducedOrder
	order := os.NewFile(reducedOrderFD, "order")
	if err := json.NewDecoder(order).Decode(&o); err != nil {
		return reducedReport{Code: fault.SystemCall, Op: "read order: " + err.Error()}
	}
	if err := unix.Chdir(o.Dir); err != nil {
		return refusedStep(fault.InvalidPath, "chdir", "/isolation/working_directory", o.Dir, err)
	}
	unix.Umask(0o022)
	for _, l := range o.Rlimits {
		name := strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))
		number, ok := reducedLimit(name)
		if !ok {
			continue // checkReducedLimits has refused what was asked for
		}
		if err := syscall.Setrlimit(number, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return refusedStep(fault.LimitUnavailable, "setrlimit", "/resources/rlimits/"+name, "", err)
		}
	}
	var last error = unix.ENOENT
	for _, file := range candidates(&o) {
		err := syscall.Exec(file, o.Args, o.Env)
		switch {
		case errors.Is(err, unix.ENOENT) && !isFile(file), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, unix.EACCES):
			last = err
		default:
			last = err
			return refusedStep(fault.CommandNotFound, "execve", "/command/0", o.Args[0], last)
		}
	}
	return refusedStep(fault.CommandNotFound, "execve", "/command/0", o.Args[0], last)
}

func isFile(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// candidates are the files that execvp would try.
func candidates(o *reducedOrder) []string {
	if strings.Contains(o.Args[0], "/") {
		return []string{o.Args[0]}
	}
	search := ""
	for _, kv := range o.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var all []string
	for _, dir := range filepath.SplitList(search) {
		all = append(all, filepath.Join(dir, o.Args[0]))
	}
	return all
}

func refusedStep(code fault.Code, op, field, path string, err error) reducedReport {
	r := reducedReport{Code: code, Op: op, Field: field, Path: path}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		r.Errno = int(errno)
	}
	return r
}

// reducedFault is the fault of a report.
func reducedFault(report []byte) error {
	var r reducedReport
	if err := json.Unmarshal(report, &r); err != nil {
		return fault.Wrap(fault.SystemCall, "start the command", err)
	}
	f := fault.Wrap(r.Code, r.Op, syscall.Errno(r.Errno)).WithField(r.Field).WithPath(r.Path)
	if r.Code == fault.CommandNotFound {
		f.Details = map[string]any{"command": r.Path, "errno": unix.ErrnoName(syscall.Errno(r.Errno))}
	}
	return f
}

// reducedLimit is the number of a limit by its name in a request.
func reducedLimit(name string) (int, bool) {
	switch name {
	case "as":
		return unix.RLIMIT_AS, true
	case "core":
		return unix.RLIMIT_CORE, true
	case "cpu":
		return unix.RLIMIT_CPU, true
	case "data":
		return unix.RLIMIT_DATA, true
	case "fsize":
		return unix.RLIMIT_FSIZE, true
	case "nofile":
		return unix.RLIMIT_NOFILE, true
	case "stack":
		return unix.RLIMIT_STACK, true
	}
	return 0, false
}

// checkReducedLimits refuses the limits that were asked for and that not every system
// of this backend has.
func checkReducedLimits(req *spec.Request) error {
	var all fault.List
	for name := range req.Resources.Rlimits {
		if _, ok := reducedLimit(name); !ok && req.Asked(spec.RlimitPrefix+name) {
			all = append(all, fault.New(fault.LimitUnavailable, "limit "+name, "this system does not have it").WithField("/resources/rlimits/"+name))
		}
	}
	return all.Err()
}
