// Package ask asks another program for scopes. The systemd driver brings half of the
// network's code along, which a server that lives as long as its containers need not hold:
// capsule-oci, which has it, does one call and ends.
package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/spec/fault"
)

// Verb is the hidden command of Program that Serve answers.
const Verb = "scope"

// Manager asks Program.
type Manager struct {
	// Program is the path of capsule-oci.
	Program string
}

// start is the operation whose answer has a path.
const start = "start"

// request is one call, on the helper's stdin.
type request struct {
	Op     string     `json:"op"` // start, set or stop
	Unit   scope.Unit `json:"unit"`
	Pid    int        `json:"pid,omitempty"`
	Limits []limit    `json:"limits,omitempty"`
}

// limit is a scope.Property, whose value systemd takes by its type.
type limit struct {
	Name   string  `json:"name"`
	Since  int     `json:"since,omitempty"`
	Number *uint64 `json:"number,omitempty"`
	Bytes  []byte  `json:"bytes,omitempty"`
}

// answer is what the helper writes to stdout.
type answer struct {
	Path  string   `json:"path,omitempty"`
	Error *problem `json:"error,omitempty"`
}

// problem is a fault.
type problem struct {
	Code    fault.Code `json:"code"`
	Field   string     `json:"field,omitempty"`
	Path    string     `json:"path,omitempty"`
	Message string     `json:"message"`
	Hint    string     `json:"hint,omitempty"`
}

// Start implements scope.Manager.
func (m Manager) Start(ctx context.Context, u scope.Unit, pid int, limits []scope.Property) (string, error) {
	all, err := encoded(limits)
	if err != nil {
		return "", err
	}
	return m.ask(ctx, request{Op: start, Unit: u, Pid: pid, Limits: all})
}

// Set implements scope.Manager.
func (m Manager) Set(ctx context.Context, u scope.Unit, limits []scope.Property) error {
	if len(limits) == 0 {
		return nil
	}
	all, err := encoded(limits)
	if err == nil {
		_, err = m.ask(ctx, request{Op: "set", Unit: u, Limits: all})
	}
	return err
}

// Stop implements scope.Manager.
func (m Manager) Stop(ctx context.Context, u scope.Unit) error {
	_, err := m.ask(ctx, request{Op: "stop", Unit: u})
	return err
}

// ask does one call. The path is that of Start.
func (m Manager) ask(ctx context.Context, r request) (path string, err error) {
	asked, err := json.Marshal(r)
	if err != nil {
		return "", fault.Wrap(fault.Cgroup, "ask for scope", err)
	}
	cmd := exec.CommandContext(ctx, m.Program, Verb)
	cmd.Stdin, cmd.Env = bytes.NewReader(asked), []string{"PATH=/usr/bin:/bin"}
	said, err := cmd.Output()
	if errors.Is(err, os.ErrNotExist) {
		return "", fault.Wrap(fault.Unsupported, "find capsule-oci", err).WithField("options.SystemdCgroup").WithPath(m.Program).
			WithHint("Install capsule-oci beside this program: it speaks with systemd for it.")
	}
	var a answer
	bad := json.Unmarshal(said, &a)
	if p := a.Error; bad == nil && p != nil {
		return "", fault.New(p.Code, "", p.Message).WithField(p.Field).WithPath(p.Path).WithHint(p.Hint)
	}
	if err = errors.Join(err, bad); err == nil && r.Op == start && !filepath.IsAbs(a.Path) {
		err = errors.New("it names no control group")
	}
	if err != nil {
		return "", fault.Wrap(fault.Cgroup, "ask for scope", err).WithPath(m.Program)
	}
	return a.Path, nil
}

func encoded(list []scope.Property) (all []limit, err error) {
	for _, p := range list {
		l := limit{Name: p.Name, Since: p.Since}
		switch v := p.Value.(type) {
		case uint64:
			l.Number = &v
		case []byte:
			l.Bytes = v
		default:
			return nil, fault.New(fault.Cgroup, "ask for scope", "the type of "+p.Name+" is not known")
		}
		all = append(all, l)
	}
	return all, nil
}

func decoded(list []limit) (all []scope.Property) {
	for _, l := range list {
		p := scope.Property{Name: l.Name, Since: l.Since, Value: l.Bytes}
		if l.Number != nil {
			p.Value = *l.Number
		}
		all = append(all, p)
	}
	return all
}

// requestMax bounds a request, in bytes.
const requestMax = 1 << 20

// Serve does the call that stands in in by a manager, and writes its answer to out.
func Serve(ctx context.Context, in io.Reader, out io.Writer, m scope.Manager) error {
	var r request
	err := json.NewDecoder(io.LimitReader(in, requestMax)).Decode(&r)
	if err != nil {
		return fault.Wrap(fault.InvalidValue, "read request", err)
	}
	var a answer
	switch r.Op {
	case start:
		a.Path, err = m.Start(ctx, r.Unit, r.Pid, decoded(r.Limits))
	case "set":
		err = m.Set(ctx, r.Unit, decoded(r.Limits))
	case "stop":
		err = m.Stop(ctx, r.Unit)
	default:
		err = fault.New(fault.InvalidValue, "read request", "is none of start, set and stop").WithField("op")
	}
	if err != nil {
		f := fault.From(err, fault.Cgroup)
		a.Error = &problem{Code: f.Code, Field: f.Field, Path: f.Path, Message: f.Message(), Hint: f.Hint}
	}
	return json.NewEncoder(out).Encode(a)
}
