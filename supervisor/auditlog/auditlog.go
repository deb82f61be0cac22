// Package auditlog writes decisions down: one JSON object a line, appended to a
// file that rotates.
package auditlog

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// mostCommand is how many bytes of a command a line holds at most.
const mostCommand = 8 << 10

// Line is one line of the audit log; docs/operations.md describes it.
type Line struct {
	Time        time.Time `json:"time"`
	Type        string    `json:"type"`
	ExecutionID string    `json:"execution_id,omitempty"`
	// UID is who asked, or whose execution it was; null: not known any more.
	UID      *uint32 `json:"uid"`
	Decision string  `json:"decision,omitempty"`
	Status   string  `json:"status,omitempty"`
	Reason   string  `json:"reason,omitempty"`
	ExitCode *int    `json:"exit_code,omitempty"`
	Signal   *int    `json:"signal,omitempty"`
	// Code and Field say why it was refused, or what went wrong.
	Code    string            `json:"code,omitempty"`
	Field   string            `json:"field,omitempty"`
	Command []string          `json:"command,omitempty"`
	Cut     bool              `json:"command_cut,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Rule is the key of the configuration that refused it.
	Rule string `json:"rule,omitempty"`
	// PolicyHash identifies the policy that decided.
	PolicyHash string `json:"policy_hash,omitempty"`
	// Sequence is that of the event that told of the end.
	Sequence uint64 `json:"sequence,omitempty"`
}

// Encode is the line with its end.
func (l *Line) Encode() ([]byte, error) {
	l.Time = l.Time.UTC()
	l.Command, l.Cut = cut(l.Command)
	data, err := json.Marshal(l)
	return append(data, '\n'), err
}

// cut bounds a command.
func cut(command []string) ([]string, bool) {
	room := mostCommand
	for i, arg := range command {
		if len(arg) > room {
			return append(command[:i:i], strings.ToValidUTF8(arg[:room], "")), true
		}
		room -= len(arg) + 1
		if room < 0 {
			return command[: i+1 : i+1], i+1 < len(command)
		}
	}
	return command, false
}

// Open opens or makes the file for appending, and ends a line that was cut off.
func Open(path string) (*os.File, error) {
	fail := func(err error) error {
		var at *os.PathError // its text has the path once more
		if errors.As(err, &at) {
			err = at.Err
		}
		return fault.Wrap(fault.IO, "open audit log", err).WithPath(path).
			WithHint("Give security.audit_log a regular file, in a directory that this user can write.")
	}
	// Without O_NONBLOCK a fifo would wait for a reader.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fail(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil && info.Mode().Perm() != 0o600 {
		err = f.Chmod(0o600)
	}
	if err == nil {
		err = endLine(f, info.Size())
	}
	if err != nil {
		f.Close()
		return nil, fail(err)
	}
	return f, nil
}

// endLine ends a line that a full disk or a crash cut off.
func endLine(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err := f.Write([]byte("\n"))
	return err
}

// Shift renames NAME to NAME.1, that to NAME.2 and so on; beyond keep the last goes.
func Shift(path string, keep int64) error {
	name := func(i int64) string { return path + "." + strconv.FormatInt(i, 10) }
	for i := keep - 1; i > 0; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(path, name(1))
}

// Append writes one line where no daemon holds the file: it opens it, rotates it
// at most bytes (0: never), and closes it again. Errors: E6001.
func Append(path string, l *Line, most, keep int64) error {
	data, err := l.Encode()
	if err != nil {
		return fault.Wrap(fault.IO, "write audit log", err).WithPath(path)
	}
	f, err := Open(path)
	if err != nil {
		return err
	}
	if f, err = room(f, path, int64(len(data)), most, keep); err == nil {
		_, err = f.Write(data)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.Wrap(fault.IO, "write audit log", err).WithPath(path)
	}
	return nil
}

// room rotates the file when it is full. Of several processes one does.
func room(f *os.File, path string, n, most, keep int64) (*os.File, error) {
	info, err := f.Stat()
	if err != nil || most == 0 || info.Size() == 0 || info.Size()+n <= most {
		return f, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return f, err
	}
	now, err := os.Stat(path)
	if err == nil && os.SameFile(info, now) {
		err = Shift(path, keep)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	next, err := Open(path)
	if err != nil {
		return f, err
	}
	return next, f.Close()
}
