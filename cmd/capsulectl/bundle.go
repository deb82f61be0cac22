package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
)

const bundleHelp = `Make, judge, run and compare OCI bundles: directories with a config.json and a root, as
runc, crun and podman run them. Every execution passes through one, so any can be taken
out and looked at, and bundles from elsewhere run here.

Usage:
  capsulectl bundle create REQUEST DIR      make a bundle of a request, a .json or .toml file or - for stdin
  capsulectl bundle export ID DIR           make one of an execution that runs or ran
  capsulectl bundle validate DIR            tell what is wrong with it, and what this host can do of it
  capsulectl bundle explain DIR             print the launch plan, step by step, each with its OCI field
  capsulectl bundle run [flags] DIR         run it; the exit status is the command's
  capsulectl bundle diff A B                list what two mean differently: - as in A, + as in B
  capsulectl bundle compare DIR --with RUNTIME
                                            run it under capsule and under runc or crun, and list
                                            what differs: exit, output, and what is seen inside

DIR of create and export must not exist, or be empty; README.md in it tells how to run it
elsewhere. validate, explain, diff, compare and run take -o json and -o template=TEXT, a Go template
over the JSON; validate, diff and compare take -q, which prints nothing. run takes of the flags of
capsulectl run those that a bundle cannot say: -t, --grace, --max-output, --output-policy,
--cpu-time, --seccomp (where the bundle has no filter), -i, --label, -c, -p, -q, -v, --pretty,
--exit-code-mode. It uses no daemon: it runs with the caller's own rights.

What capsule does not support of a bundle is an error that names the field; nothing is passed
over. What it adds, a user namespace or a filter, stands among the warnings.

Examples:
  capsulectl bundle create request.json ./b && runc run --bundle ./b trial
  capsulectl bundle export 3f2a ./b && capsulectl bundle explain ./b
  capsulectl bundle run -t 10s -o json ./b | jq .enforcement
  capsulectl bundle validate -q ./b || capsulectl bundle validate -o json ./b | jq .problems
  capsulectl bundle diff ./before ./after
  capsulectl bundle compare ./b --with crun
  capsulectl bundle compare -o template='{{.same}} {{.runtime}}' ./b --with runc

Exit status:
  validate: 0 it runs here, 1 it does not   diff, compare: 0 the same, 1 something differs
  125 capsule refused or failed             run: as capsulectl run
`

// bundler is what the bundle verbs need of the supervisor in this process.
type bundler interface {
	StartBundle(ctx context.Context, dir string, base *spec.Request, id string, st supervisor.Streams) (*supervisor.Execution, *spec.Request, error)
	ValidateBundle(ctx context.Context, dir string, base *spec.Request) (*shimapi.BundleReport, error)
	DiffBundles(ctx context.Context, a, b string) ([]byte, error)
	WriteBundle(ctx context.Context, req *spec.Request, dir, id string) error
	ProbeBundle(ctx context.Context, dir, to string) (masked []string, err error)
}

func (c *console) bundleCommand(code *int) *cli.Command {
	sub := func(name, usageLine, args string, table []option, action func(*cli.Context, *bundleCall) (int, error)) *cli.Command {
		table = append(table, option{name: "help", short: 'h', group: groupFlags, usage: "print this text"})
		flags := make([]cli.Flag, len(table))
		for i := range table {
			flags[i] = &table[i]
		}
		return &cli.Command{Name: name, Usage: usageLine, ArgsUsage: args, Flags: flags, SkipFlagParsing: true, HideHelp: true,
			HideHelpCommand: true, CustomHelpTemplate: literal(bundleHelp), OnUsageError: usageError,
			Action: func(ctx *cli.Context) error {
				k, err := parseBundle(name, table, ctx.Args().Slice())
				switch {
				case err != nil:
					return err
				case k.help:
					*code = c.print(bundleHelp)
					return nil
				}
				*code, err = action(ctx, k)
				return err
			}}
	}
	output := option{name: "output", short: 'o', value: "FORMAT", group: groupFlags, usage: outputUsage}
	quiet := option{name: "quiet", short: 'q', group: groupFlags, usage: quietUsage}
	var ofRun []option
	for i := range options {
		if ofBundles(options[i].name) {
			ofRun = append(ofRun, options[i])
		}
	}
	run := sub("run", "run a bundle", "[flags] DIR", ofRun, nil)
	run.Action = func(ctx *cli.Context) error {
		*code = c.runBundle(ctx.Args().Slice())
		return nil
	}
	commands := []*cli.Command{
		sub("create", "make a bundle of a request", "REQUEST DIR", nil, c.createBundle),
		sub("export", "make a bundle of an execution", "ID DIR", nil, c.exportBundle),
		sub("validate", "tell what is wrong with a bundle", "DIR", []option{output, quiet}, c.validateBundle),
		sub("explain", "print the launch plan of a bundle", "DIR", []option{output}, c.explainBundle),
		run,
		sub("diff", "compare two bundles", "A B", []option{output, quiet}, c.diffBundles),
		sub("compare", "run a bundle here and under another runtime", "DIR --with RUNTIME",
			[]option{output, quiet, {name: "with", value: "RUNTIME", group: groupFlags, usage: "runc, crun, or the path of another OCI runtime"}}, c.compareBundle),
	}
	bundle := &cli.Command{
		Name: "bundle", Usage: "make, judge, run and compare OCI bundles", ArgsUsage: "create|export|validate|explain|run|diff|compare",
		HideHelpCommand: true, CustomHelpTemplate: literal(bundleHelp), OnUsageError: usageError, Subcommands: commands,
	}
	bundle.Action = func(ctx *cli.Context) error {
		if ctx.NArg() > 0 {
			return unknownVerb("capsulectl bundle", ctx.Args().First(), bundle.Subcommands)
		}
		*code = c.print(bundleHelp)
		return nil
	}
	return bundle
}

// bundleCall is what the arguments of a bundle verb other than run say. Flags may
// follow the directories.
type bundleCall struct {
	name   string
	args   []string
	help   bool
	format format
	with   string
}

func parseBundle(name string, table []option, args []string) (*bundleCall, error) {
	k := &bundleCall{name: name}
	var names []string
	for i := range table {
		names = append(names, table[i].name)
	}
	p := parser{args: args, table: table, hint: func(given string) string {
		if best := nearest(given, names); len(given) > 1 && best != "" {
			return "Did you mean --" + best + "?"
		}
		return "See capsulectl bundle --help."
	}}
	p.take = func(o *option, value string) error {
		switch o.name {
		case "output":
			f, err := parseFormat(value)
			f.quiet = k.format.quiet
			k.format = f
			return err
		case "quiet":
			return parseSwitch(&k.format.quiet, value)
		case "with":
			k.with = value
			return nil
		}
		return parseSwitch(&k.help, value)
	}
	for {
		for p.flag() {
		}
		if len(p.args) == 0 {
			return k, p.faults.Err()
		}
		k.args, p.args = append(k.args, p.args[0]), p.args[1:]
	}
}

// bundler is the supervisor in this process, and what requests begin with here.
func (c *console) bundler() (bundler, *invocation, error) {
	inv := new(invocation)
	if err := c.configure(inv); err != nil {
		return nil, nil, err
	}
	eng, err := c.open(inv.rules)
	if err != nil {
		return nil, nil, err
	}
	b, ok := eng.(bundler)
	if !ok {
		return nil, nil, fault.New(fault.Unsupported, "open supervisor", "it knows no bundles")
	}
	return b, inv, nil
}

// directories are the arguments, as paths.
func (k *bundleCall) directories(n int, message string) ([]string, error) {
	if len(k.args) != n {
		return nil, usage("bundle "+k.name, message)
	}
	all := make([]string, n)
	for i := range all {
		var err error
		if all[i], err = hostPath(k.args[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (c *console) createBundle(ctx *cli.Context, k *bundleCall) (int, error) {
	if len(k.args) != 2 {
		return 0, usage("bundle create", "give the file of a request, or - for stdin, and a directory")
	}
	dir, err := hostPath(k.args[1])
	if err != nil {
		return 0, err
	}
	b, inv, err := c.bundler()
	if err != nil {
		return 0, err
	}
	data, err := c.requestDocument(k.args[0])
	if err != nil {
		return 0, err
	}
	req, err := decode(data, inv)
	if err != nil {
		return 0, err
	}
	return 0, b.WriteBundle(ctx.Context, req, dir, "")
}

func (c *console) exportBundle(ctx *cli.Context, k *bundleCall) (int, error) {
	if len(k.args) != 2 {
		return 0, usage("bundle export", "give the id of an execution and a directory")
	}
	dir, err := hostPath(k.args[1])
	if err != nil {
		return 0, err
	}
	b, _, err := c.bundler()
	if err != nil {
		return 0, err
	}
	l, err := c.connect(ctx.Context, "", false, nil)
	if err != nil {
		return 0, err
	}
	defer l.close()
	s := &session{console: c, call: new(call), link: l}
	id, err := s.resolve(ctx.Context, k.args[0])
	if err != nil {
		return 0, err
	}
	d, err := l.current().Inspect(ctx.Context, id)
	if err != nil {
		return 0, err
	}
	if d.Request == nil {
		return 0, fault.New(fault.StateUnreadable, "export bundle", "the request of this execution was not kept")
	}
	return 0, b.WriteBundle(ctx.Context, d.Request, dir, id)
}

func (c *console) validateBundle(ctx *cli.Context, k *bundleCall) (int, error) {
	dirs, err := k.directories(1, "give the directory of the bundle")
	if err != nil {
		return 0, err
	}
	b, inv, err := c.bundler()
	if err != nil {
		return 0, err
	}
	base, err := inv.base()
	if err != nil {
		return 0, err
	}
	r, err := b.ValidateBundle(ctx.Context, dirs[0], base)
	if err != nil {
		return 0, err
	}
	code, err := c.present(&k.format, r, reportText(r))
	if err == nil && !r.Valid {
		code = max(code, 1)
	}
	return code, err
}

func reportText(r *shimapi.BundleReport) string {
	var b strings.Builder
	for _, p := range r.Problems {
		b.WriteString(p.Code + ": ")
		if p.Pointer != "" {
			b.WriteString(p.Pointer + ": ")
		}
		b.WriteString(joinHint(p.Message, p.Hint) + "\n")
	}
	for _, w := range r.Warnings {
		b.WriteString("note: " + w + "\n")
	}
	if !r.Valid {
		b.WriteString("it does not run here\n")
		return b.String()
	}
	b.WriteString("it runs here, behind these walls: " + strings.ReplaceAll(strings.Join(r.Walls, ", "), "_", " ") + "\n")
	return b.String()
}

func (c *console) explainBundle(ctx *cli.Context, k *bundleCall) (int, error) {
	dirs, err := k.directories(1, "give the directory of the bundle")
	if err != nil {
		return 0, err
	}
	rules, err := c.rules("")
	if err != nil {
		return 0, err
	}
	eng, err := c.open(rules)
	if err != nil {
		return 0, err
	}
	text, err := eng.ExplainBundle(ctx.Context, dirs[0])
	if err != nil {
		return 0, err
	}
	return c.present(&k.format, planDocument{text}, text)
}

// runBundle is run for a bundle: the same streams, signals and reports.
func (c *console) runBundle(args []string) (code int) {
	inv, err := parse(args)
	inv.bundle = "."
	if err != nil && len(inv.command) == 0 && fault.From(err, fault.IO).Code == fault.MissingField {
		err = usage("bundle run", "give the directory of the bundle")
	}
	inv.jsonOutput = inv.jsonOutput || err != nil && wantsJSON(args)
	rep := &reporter{console: c, inv: inv, created: time.Now()}
	defer func() {
		if p := recover(); p != nil {
			code = rep.crashed(p)
		}
	}()
	if inv.help {
		return c.print(bundleHelp)
	}
	if err == nil {
		err = c.bundleArguments(inv)
	}
	if err != nil {
		return rep.refuse(err)
	}
	return c.execute(inv, rep)
}

// ofBundles says whether bundle run takes a flag of run: one for what no bundle says.
func ofBundles(flag string) bool {
	switch flag {
	case "timeout", "grace", "max-output", "output-policy", "cpu-time", "seccomp", "label", "stdin", "config", "profile",
		"output", "pretty", "exit-code-mode", "quiet", "verbose":
		return true
	}
	return false
}

// bundleArguments takes the directory, and refuses what the bundle says itself.
func (c *console) bundleArguments(inv *invocation) error {
	var all fault.List
	for _, s := range inv.settings {
		if !ofBundles(s.option.name) {
			all = append(all, fault.New(fault.InvalidValue, "", "--"+s.option.name+" cannot be combined with a bundle").WithHint("Change config.json."))
		}
	}
	for name, given := range map[string]bool{"json": inv.jsonInput, "file": inv.file != "", "lang": inv.lang != "", "detach": inv.detach,
		"dry-run": inv.dryRun, "address": inv.address != "", "create-config": inv.create != ""} {
		if given {
			all = append(all, fault.New(fault.InvalidValue, "", "--"+name+" means nothing for bundle run").WithHint("See capsulectl bundle --help."))
		}
	}
	if len(inv.command) != 1 {
		all = append(all, usage("bundle run", "give one directory, after the flags").(*fault.Fault))
		return all.Err()
	}
	var err error
	inv.bundle, err = hostPath(inv.command[0])
	if err != nil {
		return err
	}
	return all.Err()
}

// bundleStarter runs a bundle in place of the request.
type bundleStarter struct {
	bundler
	dir string
}

// Start implements starter. The order's request becomes what the bundle asks for.
func (b bundleStarter) Start(ctx context.Context, o *order, st supervisor.Streams) (execution, error) {
	x, req, err := b.StartBundle(ctx, b.dir, o.request, o.id, st)
	if err != nil {
		return nil, err
	}
	*o.request = *req
	return x, nil
}

func (c *console) bundleStarter(inv *invocation) (starter, error) {
	eng, err := c.open(inv.rules)
	if err != nil {
		return nil, err
	}
	b, ok := eng.(bundler)
	if !ok {
		return nil, fault.New(fault.Unsupported, "open supervisor", "it knows no bundles")
	}
	return bundleStarter{b, inv.bundle}, nil
}

// temporary makes a directory that other ids may pass through, as a runtime in a
// user namespace has to.
func temporary() (string, error) {
	dir, err := os.MkdirTemp("", "capsule-bundle-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		return "", fault.Wrap(fault.IO, "make a temporary directory", err)
	}
	return filepath.Clean(dir), nil
}
