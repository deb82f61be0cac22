package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// auditLine says in one line what an execution under the profile audit called.
func auditLine(r *spec.Response) string {
	total, refused := int64(0), []string{}
	for i := range r.Syscalls {
		s := &r.Syscalls[i]
		total += s.Count
		if slices.Contains(s.RefusedBy, spec.SeccompStrict) {
			refused = append(refused, s.Name)
		}
	}
	text := fmt.Sprintf("audit: %d system calls of %d kinds; strict would have refused ", total, len(r.Syscalls))
	if len(refused) == 0 {
		return text + "none"
	}
	return text + strings.Join(refused, ", ")
}

// recordOf reads the response of an execution under the profile audit: of a file,
// of stdin, or of an execution by its id.
func (c *console) recordOf(source string) (*spec.Response, error) {
	var data []byte
	var err error
	switch {
	case source == "-":
		if data, err = io.ReadAll(io.LimitReader(c.stdin, maxFileBytes)); err != nil {
			err = fault.Wrap(fault.IO, "read stdin", err)
		}
	case strings.Contains(source, "/") || strings.HasSuffix(source, ".json"):
		data, err = readFile(source)
	default:
		data, err = c.answer(func(c *console) int { return c.verbs([]string{"inspect", "-o", "json", source}) })
	}
	if err != nil {
		return nil, err
	}
	r, err := spec.DecodeResponse(data)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidValue, "read the response of "+source, err).
			WithHint("Record with: capsulectl run --seccomp audit --output json -- CMD > FILE.json")
	}
	if len(r.Syscalls) == 0 {
		return nil, fault.New(fault.InvalidValue, "read the response of "+source, "it has no system calls").
			WithHint("Only executions with --seccomp audit record them; warnings of the response say when they could not.")
	}
	return r, nil
}

// answer is what a verb prints on stdout. A verb that refuses has its reason in
// the document, which becomes the error.
func (c *console) answer(verb func(*console) int) ([]byte, error) {
	var out bytes.Buffer
	inner := *c
	inner.stdout = &out
	code := verb(&inner)
	if r, err := spec.DecodeResponse(out.Bytes()); code == spec.ExitRefused && err == nil && r.Error != nil {
		return nil, fault.New(fault.Code(r.Error.Code), "", r.Error.Message).WithHint(r.Error.Hint)
	}
	return out.Bytes(), nil
}

// seenIn are the calls of a response.
func seenIn(r *spec.Response) []seccomp.Seen {
	var seen []seccomp.Seen
	for _, s := range r.Syscalls {
		seen = append(seen, seccomp.Seen{Call: s.Name, Count: s.Count, Arguments: s.Arguments, Partial: s.Partial, Processes: s.Processes})
	}
	return seen
}

// generateProfile makes a profile of records.
func (c *console) generateProfile(ctx *cli.Context, asJSON bool) (any, string, error) {
	if ctx.NArg() == 0 {
		return nil, "", usage("seccomp generate", "give responses of executions with --seccomp audit: files, - or ids")
	}
	var seen []seccomp.Seen
	for _, source := range ctx.Args().Slice() {
		r, err := c.recordOf(source)
		if err != nil {
			return nil, "", err
		}
		seen = seccomp.Merge(seen, r.ExecutionID, seenIn(r))
	}
	profile, rules, err := seccomp.Generate(seen, runtime.GOARCH)
	if err != nil {
		return nil, "", err
	}
	text, err := indented(profile)
	if err != nil {
		return nil, "", err
	}
	var notes []string
	for _, r := range rules {
		notes = append(notes, strings.TrimSpace(r.Call+" "+r.Arguments)+": "+r.Reason)
	}
	for i := range seen {
		if seen[i].Partial {
			notes = append(notes, "warning: "+seen[i].Call+" had more different arguments than were kept; those that are missing will be refused")
		}
	}
	if !asJSON {
		_ = c.diagnose(notes)
	}
	return struct {
		Profile *specs.LinuxSeccomp `json:"profile"`
		Rules   []seccomp.Rule      `json:"rules"`
	}{profile, rules}, text, nil
}

// trial is what seccomp test found.
type trial struct {
	Profile     string      `json:"profile"`
	ExecutionID string      `json:"execution_id"`
	Status      spec.Status `json:"status"`
	Reason      spec.Reason `json:"reason"`
	// Refused are the calls that the profile would not have allowed.
	Refused []judgement `json:"refused"`
}

// judgement is what a profile would have done with a call.
type judgement struct {
	Call      string   `json:"call"`
	Arguments string   `json:"arguments,omitempty"`
	Answer    string   `json:"answer"`
	Count     int64    `json:"count"`
	Processes []string `json:"processes,omitempty"`
}

// testProfile runs a command under the profile audit and says what another one
// would have refused. args: PROFILE, flags of the run verb, the command.
func (c *console) testProfile(args []string) (int, error) {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return 0, usage("seccomp test", "give a profile, a name or a file, and a command behind --")
	}
	profile, err := profileOf(args[0])
	if err != nil {
		return 0, err
	}
	inv, err := parse(args[1:])
	if err != nil {
		return 0, err
	}
	f := format{json: inv.jsonOutput, template: inv.template, quiet: inv.quiet}
	data, err := c.answer(func(c *console) int { return c.run(auditing(args[1:], inv.command)) })
	if err != nil {
		return 0, err
	}
	r, err := spec.DecodeResponse(data)
	if err != nil {
		return 0, fault.Wrap(fault.IO, "read the response", err)
	}
	if r.Status == spec.StatusError || len(r.Syscalls) == 0 {
		if r.Error == nil {
			return 0, fault.New(fault.Unsupported, "record system calls", strings.Join(append([]string{"none were recorded"}, r.Warnings...), "; "))
		}
		return 0, fault.New(fault.Code(r.Error.Code), "", r.Error.Message).WithHint(r.Error.Hint)
	}
	for _, stream := range []*string{r.Stdout, r.Stderr} {
		if stream != nil && !f.quiet {
			_, _ = io.WriteString(c.stderr, *stream) // the command's own words, beside the report
		}
	}
	bad := judge(profile, r)
	t := &table{}
	t.row("CALL", "ARGUMENTS", "WOULD BE", "COUNT", "BY")
	for _, j := range bad {
		t.row(j.Call, j.Arguments, j.Answer, strconv.FormatInt(j.Count, 10), strings.Join(j.Processes, ", "))
	}
	text := strings.Join(t.lines(0, false), "\n")
	if len(bad) == 0 {
		text = args[0] + " would have refused nothing"
	}
	code, err := c.present(&f, trial{args[0], r.ExecutionID, r.Status, r.Termination.Reason, bad}, text)
	if err != nil || code != 0 {
		return code, err
	}
	if !f.quiet {
		_ = c.diagnose([]string{"the command ended: " + ending(r)}) // beside the report
	}
	return min(len(bad), 1), nil
}

// auditing are the arguments of a run verb whose response holds the system calls;
// command is the part of args that is no flag.
func auditing(args, command []string) []string {
	flags := args[:len(args)-len(command)]
	if n := len(flags); n > 0 && flags[n-1] == "--" {
		flags = flags[:n-1]
	}
	// Behind what the caller gave, so that these hold.
	return slices.Concat(flags, []string{"--seccomp", spec.SeccompAudit, "--output", "json", "--"}, command)
}

// judge lists what a profile would not have allowed.
func judge(profile *specs.LinuxSeccomp, r *spec.Response) []judgement {
	bad := []judgement{} // not null in JSON
	for _, s := range r.Syscalls {
		arguments := s.Arguments
		if len(arguments) == 0 {
			arguments = []string{""}
		}
		for _, a := range arguments {
			if answer := seccomp.Judge(profile, s.Name, a); answer != seccomp.JudgedAllowed {
				bad = append(bad, judgement{s.Name, a, answer, s.Count, s.Processes})
			}
		}
	}
	return bad
}

// profileOf is a shipped profile, or one of a file.
func profileOf(name string) (*specs.LinuxSeccomp, error) {
	if !strings.Contains(name, "/") && !strings.HasSuffix(name, ".json") {
		return seccomp.Profile(name)
	}
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	profile := new(specs.LinuxSeccomp)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(profile); err != nil {
		return nil, fault.Wrap(fault.Seccomp, "read filter", err).WithPath(name)
	}
	if profile.DefaultAction == "" {
		return nil, fault.New(fault.Seccomp, "read filter", "is missing").WithField("linux.seccomp.defaultAction").WithPath(name)
	}
	return profile, nil
}
