package fault

import (
	"errors"
	"strings"
	"syscall"
)

// Fault is an error with a stable code. Everything that a caller of capsule
// can see is a Fault or a List of them.
type Fault struct {
	// Code is the stable identifier, for example E2004. Never empty.
	Code Code
	// Op says what was being done, in the infinitive or as a system call with
	// its object: "mount /proc", "decode request". May be empty.
	Op string
	// Field is the JSON pointer (RFC 6901) of the request field, or the dotted
	// OCI field ("linux.seccomp"), that the fault is about. Empty: none.
	Field string
	// Path is the host or sandbox path that the fault is about. Empty: none.
	Path string
	// Errno is what the kernel answered. Zero: the kernel was not involved.
	Errno syscall.Errno
	// Err is the cause. May be nil.
	Err error
	// Hint tells the caller what to do about it. Empty: what helps against the
	// errno, or the code's own hint of the table, is shown.
	Hint string
	// Details carries machine-readable facts (limits, peaks); values must
	// survive encoding/json.
	Details map[string]any
}

// New makes a fault from a code, what was being done and a cause's text.
func New(code Code, op, message string) *Fault {
	return &Fault{Code: code, Op: op, Err: errors.New(message)}
}

// Wrap makes a fault around err. An errno inside err is lifted into Errno.
func Wrap(code Code, op string, err error) *Fault {
	f := &Fault{Code: code, Op: op, Err: err}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		f.Errno = errno
	}
	return f
}

// WithHint sets the remedy and returns f.
func (f *Fault) WithHint(hint string) *Fault { f.Hint = hint; return f }

// WithField sets the field and returns f.
func (f *Fault) WithField(field string) *Fault { f.Field = field; return f }

// WithPath sets the path and returns f.
func (f *Fault) WithPath(path string) *Fault { f.Path = path; return f }

// Message is the fault without its code: "op: path: cause".
func (f *Fault) Message() string {
	var b strings.Builder
	add := func(s string) {
		if s == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(s)
	}
	add(f.Op)
	if f.Path != "" && !strings.Contains(f.Op, f.Path) {
		add(f.Path)
	}
	switch {
	case f.Err != nil:
		add(f.Err.Error())
	case f.Errno != 0:
		add(f.Errno.Error())
	}
	if b.Len() == 0 {
		add(f.Code.Info().Name)
	}
	return b.String()
}

// Error is the message in front of which the code stands.
func (f *Fault) Error() string { return string(f.Code) + " " + f.Message() }

// Unwrap gives the cause to errors.Is and errors.As.
func (f *Fault) Unwrap() error { return f.Err }

// Is makes errors.Is compare faults by code alone.
func (f *Fault) Is(target error) bool {
	t, ok := target.(*Fault)
	return ok && t.Code == f.Code
}

// Remedy is the fault's own hint, else what helps against its errno, or else the hint that
// the table has for its code.
func (f *Fault) Remedy() string {
	if f.Hint != "" {
		return f.Hint
	}
	if remedy := errnoRemedy(f.Code, f.Errno); remedy != "" {
		return remedy
	}
	return f.Code.Info().Hint
}

// List is several faults found at once, as validation does. Never empty when
// used as an error.
type List []*Fault

// Error joins the messages, one per line.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, f := range l {
		lines[i] = f.Error()
		if f.Field != "" {
			lines[i] = string(f.Code) + " " + f.Field + ": " + f.Message()
		}
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each fault to errors.Is and errors.As.
func (l List) Unwrap() []error {
	errs := make([]error, len(l))
	for i, f := range l {
		errs[i] = f
	}
	return errs
}

// Err is l as an error, nil when it is empty.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

// From turns any error into a fault: the first one in its chain, or a new one
// of the given code around it.
func From(err error, otherwise Code) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return Wrap(otherwise, "", err)
}
