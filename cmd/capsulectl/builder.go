package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// builder makes a request of flags.
type builder struct {
	req *spec.Request
	// lookupEnv is the caller's environment, for bare -e KEY.
	lookupEnv func(string) (string, bool)
}

// build makes the complete, valid request that the invocation describes. Every
// problem is reported at once.
func build(inv *invocation, lookupEnv func(string) (string, bool)) (*spec.Request, error) {
	req, faults := assemble(inv, lookupEnv)
	if len(faults) > 0 {
		return nil, faults
	}
	if err := req.Validate(); err != nil {
		return nil, nameFlags(err, inv.settings)
	}
	req.Complete()
	return req, nil
}

// assemble applies configuration and profile to the built-in defaults, and then the flags in
// their order.
func assemble(inv *invocation, lookupEnv func(string) (string, bool)) (*spec.Request, fault.List) {
	var faults fault.List
	base, err := inv.base()
	if err != nil {
		faults = append(faults, fault.From(err, fault.ConfigFile))
		base = spec.Default()
	}
	b := builder{req: base, lookupEnv: lookupEnv}
	b.req.Command = inv.command
	for _, s := range inv.settings {
		if err := s.option.apply(&b, s.value); err != nil {
			faults = append(faults, s.option.wrap(err))
		}
	}
	return b.req, faults
}

// decode reads the request of stdin over the defaults and the profile.
func decode(data []byte, inv *invocation) (*spec.Request, error) {
	base, err := inv.base()
	if err != nil {
		return nil, err
	}
	return spec.DecodeOver(base, data)
}

// nameFlags adds to each fault the flag that set the field, since the caller
// wrote flags and not JSON. Other errors stay as they are.
func nameFlags(err error, settings []setting) error {
	var faults fault.List
	if !errors.As(err, &faults) {
		var f *fault.Fault
		if !errors.As(err, &f) {
			return err
		}
		faults = fault.List{f}
	}
	named := make(fault.List, len(faults))
	for i, f := range faults {
		named[i] = f
		if o := flagOf(f.Field, settings); o != nil {
			named[i] = o.wrap(f)
		}
	}
	return named
}

// flagOf is the option among settings that set the field at pointer, nil for none.
func flagOf(pointer string, settings []setting) *option {
	for _, s := range settings {
		if p := s.option.pointer; pointer == p || strings.HasPrefix(pointer, p+"/") {
			return s.option
		}
	}
	return nil
}

func applyTimeout(b *builder, v string) (err error) {
	if b.req.TimeoutMS, err = spec.ParseDuration(v); err != nil {
		return fault.From(err, fault.InvalidValue).WithHint("-t is --timeout, and no terminal: milliseconds, or a number with ms, s, m or h.")
	}
	return nil
}

func applyGrace(b *builder, v string) (err error) {
	b.req.GraceMS, err = spec.ParseDuration(v)
	return err
}

func applyEnv(b *builder, v string) error {
	key, value, given := strings.Cut(v, "=")
	if key == "" {
		return invalid(v, "has no name; the form is KEY=VALUE or KEY")
	}
	if !given {
		if !spec.IsVariableName(key) {
			return invalid(v, "is neither KEY=VALUE nor the name of a variable")
		}
		// A name that is not set here stays unset there, as with docker.
		if value, given = b.lookupEnv(key); !given {
			return nil
		}
	}
	setEntry(&b.req.Environment, key, value)
	return nil
}

// maxFileBytes bounds files that flags name; both formats are a few kilobytes
// in practice and the request itself could not carry more.
const maxFileBytes = 16 << 20

// applyEnvFile reads docker's format: one KEY=VALUE or KEY a line, taken
// literally; blank lines and lines that begin with # are skipped.
func applyEnvFile(b *builder, v string) error {
	data, err := readFile(v)
	if err != nil {
		return err
	}
	for n, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSuffix(strings.TrimLeft(line, " \t"), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := applyEnv(b, line); err != nil {
			f := fault.From(err, fault.InvalidValue)
			f.Op = "line " + strconv.Itoa(n+1) + " of " + v
			return f
		}
	}
	return nil
}

func applyLabel(b *builder, v string) error {
	key, value, _ := strings.Cut(v, "=")
	if key == "" {
		return invalid(v, "has no name; the form is KEY=VALUE")
	}
	setEntry(&b.req.Labels, key, value)
	return nil
}

func applyWorkdir(b *builder, v string) error {
	if !strings.HasPrefix(v, "/") {
		return fault.New(fault.InvalidPath, "", strconv.Quote(v)+" is not absolute").
			WithHint("The path is one inside the sandbox; show a host directory there with --readonly, --writable or --bind.")
	}
	b.req.Isolation.WorkingDirectory = filepath.Clean(v)
	return nil
}

func applyReadonly(b *builder, v string) error {
	path, err := hostPath(v)
	b.req.Isolation.ReadonlyPaths = append(b.req.Isolation.ReadonlyPaths, path)
	return err
}

func applyWritable(b *builder, v string) error {
	path, err := hostPath(v)
	b.req.Isolation.WritablePaths = append(b.req.Isolation.WritablePaths, path)
	return err
}

func applyBind(b *builder, v string) error {
	parts := strings.Split(v, ":")
	readonly := true
	if n := len(parts); n == 3 && (parts[2] == "ro" || parts[2] == "rw") {
		readonly = parts[2] == "ro"
	} else if n != 2 {
		f := invalid(v, "is not SRC:DEST, SRC:DEST:ro or SRC:DEST:rw")
		if n == 1 {
			f.Hint = "To show a path at the same place use --readonly or --writable."
		}
		return f
	}
	if !strings.HasPrefix(parts[1], "/") {
		return fault.New(fault.InvalidPath, "", "the destination "+strconv.Quote(parts[1])+" is not absolute").
			WithHint("The destination is a path inside the sandbox, for example /workspace/data.")
	}
	source, err := hostPath(parts[0])
	mount := spec.BindMount{Source: source, Destination: filepath.Clean(parts[1]), Readonly: readonly}
	b.req.Isolation.BindMounts = append(b.req.Isolation.BindMounts, mount)
	return err
}

func applyRootfs(b *builder, v string) error {
	path, err := hostPath(v)
	b.req.Isolation.Rootfs = &path
	return err
}

// hostPath makes a path of the command line absolute and clean. An empty one is
// refused: it is an unset shell variable, and would mean the current directory.
func hostPath(v string) (string, error) {
	if v == "" {
		return "", fault.New(fault.InvalidPath, "", "the path is empty").
			WithHint("An unset shell variable? Write . for the current directory.")
	}
	path, err := filepath.Abs(v)
	if err != nil {
		return "", fault.Wrap(fault.InvalidPath, "resolve against the current directory", err).WithPath(v)
	}
	return path, nil
}

func applyUser(b *builder, v string) error {
	b.req.Isolation.User = v
	return nil
}

func applyHostname(b *builder, v string) error {
	b.req.Isolation.Hostname = v
	return nil
}

// applyNetwork is a switch, and also understands docker's two names for its states.
func applyNetwork(b *builder, v string) error {
	switch v {
	case "none":
		v = "false"
	case "host":
		v = "true"
	}
	return parseSwitch(&b.req.Isolation.Network, v)
}

func applyNoInit(b *builder, v string) error {
	var without bool
	err := parseSwitch(&without, v)
	b.req.Isolation.Init = !without
	return err
}

func applyAllowDegraded(b *builder, v string) error {
	b.req.Isolation.AllowDegraded = append(b.req.Isolation.AllowDegraded, v)
	return nil
}

// applySeccomp takes a profile's name, or the path of a file with an OCI
// linux.seccomp object: what contains a slash or ends in .json is a file.
func applySeccomp(b *builder, v string) error {
	if !strings.Contains(v, "/") && !strings.HasSuffix(v, ".json") {
		b.req.Isolation.Seccomp = spec.Seccomp{Name: v}
		return nil
	}
	data, err := readFile(v)
	if err != nil {
		return err
	}
	b.req.Isolation.Seccomp = spec.Seccomp{Custom: bytes.TrimSpace(data)}
	return nil
}

// setEntry sets a key of a map that may be nil.
func setEntry(m *map[string]string, key, value string) {
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[key] = value
}

func invalid(v, why string) *fault.Fault {
	return fault.New(fault.InvalidValue, "", strconv.Quote(v)+" "+why)
}
