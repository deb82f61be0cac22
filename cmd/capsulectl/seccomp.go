package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/spec/fault"
)

const seccompHelp = `Read the shipped system call filters, which --seccomp chooses from, and make others.

Usage:
  capsulectl seccomp list                      print their names, and whom they are for
  capsulectl seccomp show NAME                 print one as an OCI linux.seccomp object
  capsulectl seccomp explain NAME [CALL...]    tell what becomes of system calls, and why
  capsulectl seccomp diff A B                  list the calls that two answer differently:
                                               - as A answers, + as B does
  capsulectl seccomp generate RECORD...        make one that allows what was recorded and
                                               nothing else; the reasons go to stderr
  capsulectl seccomp test PROFILE [FLAGS] -- CMD [ARG...]
                                               run a command and list what a profile, a
                                               name or a file, would have refused to it

A record is the response of an execution with --seccomp audit: a file, - for stdin, or
an id. test takes the flags of run; its exit status is 1 when something would have been
refused. list, explain, diff, generate and test take -o json and -o template=TEXT, a Go
template over the JSON; test -q prints nothing. What was refused to a command is in the
denials of its response.

Examples:
  capsulectl seccomp list
  capsulectl seccomp explain default ptrace clone
  capsulectl seccomp diff default strict
  capsulectl seccomp show strict > mine.json && capsulectl run --seccomp mine.json -- true
  capsulectl run --seccomp audit --output json -- sort --version > record.json
  capsulectl seccomp generate record.json > sort.json
  capsulectl seccomp test sort.json -- sort --version
  capsulectl seccomp test strict -o template='{{range .refused}}{{.call}} {{end}}' -- sort --version
`

// seccompCommand is about filters. Only its test runs something.
func (c *console) seccompCommand(code *int) *cli.Command {
	sub := func(name, usage string, flags []cli.Flag, text func(*cli.Context, bool) (any, string, error)) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, HideHelpCommand: true, CustomHelpTemplate: literal(seccompHelp), OnUsageError: usageError, Flags: flags,
			Action: func(ctx *cli.Context) (err error) {
				f := format{json: true}
				if len(flags) > 0 {
					if f, err = formatOf(ctx); err != nil {
						return err
					}
				}
				value, human, err := text(ctx, f.json)
				if err != nil {
					return err
				}
				*code, err = c.present(&f, value, human)
				return err
			}}
	}
	flags := []cli.Flag{outputFlag()}
	commands := []*cli.Command{
		sub("list", "print the names", flags, listProfiles),
		sub("show", "print one as OCI JSON", nil, showProfile),
		sub("explain", "tell what becomes of system calls", flags, explainProfile),
		sub("diff", "compare two", flags, diffProfiles),
		sub("generate", "make one of records", flags, c.generateProfile),
		{Name: "test", Usage: "tell what one would refuse to a command", SkipFlagParsing: true, HideHelp: true, HideHelpCommand: true,
			CustomHelpTemplate: literal(seccompHelp), Action: func(ctx *cli.Context) (err error) {
				if first := ctx.Args().First(); first == "-h" || first == "--help" {
					*code = c.print(seccompHelp)
					return nil
				}
				*code, err = c.testProfile(ctx.Args().Slice())
				return err
			}},
	}
	verb := &cli.Command{Name: "seccomp", Usage: "read and make system call filters", ArgsUsage: "list|show|explain|diff|generate|test",
		HideHelpCommand: true, CustomHelpTemplate: literal(seccompHelp), OnUsageError: usageError, Subcommands: commands}
	verb.Action = func(ctx *cli.Context) error {
		if ctx.NArg() > 0 {
			return unknownVerb("capsulectl seccomp", ctx.Args().First(), commands)
		}
		*code = c.print(seccompHelp)
		return nil
	}
	return verb
}

func indented(value any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // conditions have an &
	e.SetIndent("", "  ")
	if err := e.Encode(value); err != nil {
		return "", fault.Wrap(fault.IO, "encode system call filter", err)
	}
	return b.String(), nil
}

func listProfiles(ctx *cli.Context, _ bool) (any, string, error) {
	if err := noArguments(ctx); err != nil {
		return nil, "", err
	}
	type profile struct {
		Name    string `json:"name"`
		Summary string `json:"summary"`
	}
	var all []profile
	t := &table{}
	t.row("NAME", "FOR")
	for _, name := range seccomp.Names() {
		summary, err := seccomp.Summary(name)
		if err != nil {
			return nil, "", err
		}
		all = append(all, profile{name, summary})
		t.row(name, summary)
	}
	return all, strings.Join(t.lines(0, false), "\n"), nil
}

func showProfile(ctx *cli.Context, _ bool) (any, string, error) {
	if ctx.NArg() != 1 {
		return nil, "", usage("seccomp show", "give one name; capsulectl seccomp list prints them")
	}
	object, err := seccomp.OCI(ctx.Args().First())
	return json.RawMessage(object), "", err
}

func explainProfile(ctx *cli.Context, asJSON bool) (any, string, error) {
	if ctx.NArg() == 0 {
		return nil, "", usage("seccomp explain", "give a name; capsulectl seccomp list prints them")
	}
	name := ctx.Args().First()
	all, err := seccomp.Explain(name, ctx.Args().Tail()...)
	if err != nil || asJSON {
		return all, "", err
	}
	var b strings.Builder
	for i := range all {
		explainCall(&b, name, &all[i])
	}
	if ctx.NArg() == 1 {
		other, err := seccomp.Default(name)
		if err != nil {
			return nil, "", err
		}
		b.WriteString("every other call\n  " + other + "\n")
	}
	return nil, b.String(), nil
}

func explainCall(b *strings.Builder, profile string, e *seccomp.Explanation) {
	b.WriteString(e.Call + "\n")
	for i := range e.Clauses {
		c := &e.Clauses[i]
		b.WriteString("  " + c.Answer)
		if len(c.When) > 0 {
			b.WriteString(" when " + strings.Join(c.When, " and "))
		}
		if c.Quiet {
			b.WriteString(" (not among the denials)")
		}
		b.WriteString("\n      " + c.Reason + "\n")
	}
	switch {
	case e.Otherwise == "":
	case len(e.Clauses) > 0:
		b.WriteString("  " + e.Otherwise + " otherwise\n")
	default:
		b.WriteString("  " + e.Otherwise + "\n      No rule of " + profile + " names it.\n")
	}
}

func diffProfiles(ctx *cli.Context, asJSON bool) (any, string, error) {
	if ctx.NArg() != 2 {
		return nil, "", usage("seccomp diff", "give two names; capsulectl seccomp list prints them")
	}
	a, b := ctx.Args().Get(0), ctx.Args().Get(1)
	all, err := seccomp.Diff(a, b)
	if err != nil || asJSON {
		return all, "", err
	}
	one, err := seccomp.Default(a)
	if err != nil {
		return nil, "", err
	}
	other, err := seccomp.Default(b)
	if err != nil {
		return nil, "", err
	}
	if one != other {
		all = append(all, seccomp.Difference{Call: "every other call", A: one, B: other})
	}
	var out strings.Builder
	for _, d := range all {
		was, is := strings.Split(d.A, "; "), strings.Split(d.B, "; ")
		out.WriteString(d.Call + "\n")
		onlyIn(&out, "  - ", was, is)
		onlyIn(&out, "  + ", is, was)
	}
	return nil, out.String(), nil
}

// onlyIn writes the clauses of one that other has not.
func onlyIn(b *strings.Builder, mark string, one, other []string) {
	for _, clause := range one {
		if !slices.Contains(other, clause) {
			b.WriteString(mark + clause + "\n")
		}
	}
}
