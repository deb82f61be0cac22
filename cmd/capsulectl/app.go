package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// verbs runs any verb through the App and returns the exit status. A caller that
// asked for JSON gets a document for a verb or flag that does not exist, too.
func (c *console) verbs(args []string) int {
	code := 0
	app := c.app(&code)
	help := &keeper{to: c.stdout}
	app.Writer = help
	err := app.Run(append([]string{"capsulectl"}, flagsFirst(app.Commands, args)...))
	if err == nil && help.err != nil {
		return c.unwritten(help.err)
	}
	if err == nil {
		return code
	}
	if wantsJSON(args) {
		rep := &reporter{console: c, inv: &invocation{jsonOutput: true}, created: time.Now()}
		return rep.refuse(err)
	}
	return c.fail(err)
}

// keeper keeps the first error of a writer for help texts: cli drops it.
type keeper struct {
	to  io.Writer
	err error
}

func (k *keeper) Write(b []byte) (int, error) {
	n, err := k.to.Write(b)
	if k.err == nil {
		k.err = err
	}
	return n, err
}

// help prints the help text of a verb and returns the exit status.
func (c *console) help(verb string) int { return c.verbs([]string{"help", verb}) }

// app describes every verb. The actions put their exit status into code and
// return an error only for what they did not report themselves.
func (c *console) app(code *int) *cli.App {
	app := &cli.App{
		Name:                  "capsulectl",
		Usage:                 "run untrusted commands in fresh sandboxes",
		Writer:                c.stdout,
		ErrWriter:             c.stderr,
		HideVersion:           true,
		CustomAppHelpTemplate: literal(appHelp),
		Flags:                 []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version"}, cli.HelpFlag},
		OnUsageError:          usageError,
		ExitErrHandler:        func(*cli.Context, error) {}, // main alone exits
		Commands: []*cli.Command{
			c.runCommand(code), c.versionCommand(code), c.schemaCommand(code), c.bundleCommand(code), c.configCommand(code), c.doctorCommand(code), c.benchCommand(code), c.seccompCommand(code), c.kubeCommand(code), c.completionCommand(code),
		},
	}
	for _, v := range verbTable() {
		app.Commands = append(app.Commands, c.command(v, code))
	}
	app.Action = func(ctx *cli.Context) error {
		if ctx.Bool("version") {
			*code = c.print(versionText())
			return nil
		}
		if ctx.NArg() > 0 {
			return unknownVerb("capsulectl", ctx.Args().First(), app.Commands)
		}
		*code = c.print(appHelp)
		return nil
	}
	app.Commands = append(app.Commands, c.helpCommand(code, app))
	app.HideHelpCommand = true
	return app
}

func (c *console) runCommand(code *int) *cli.Command {
	flags := make([]cli.Flag, len(options))
	for i := range options {
		flags[i] = &options[i]
	}
	return &cli.Command{
		Name: "run", Usage: "run a command in a fresh sandbox", ArgsUsage: "[--] CMD ARG...",
		Flags: flags, SkipFlagParsing: true, HideHelp: true, HideHelpCommand: true,
		CustomHelpTemplate: literal(runHelp()),
		Action: func(ctx *cli.Context) error {
			*code = c.run(ctx.Args().Slice())
			return nil
		},
	}
}

func (c *console) versionCommand(code *int) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", HideHelpCommand: true, CustomHelpTemplate: literal(versionHelp),
		Flags: []cli.Flag{outputFlag()}, OnUsageError: usageError,
		Action: func(ctx *cli.Context) error {
			if err := noArguments(ctx); err != nil {
				return err
			}
			f, err := formatOf(ctx)
			if err != nil {
				return err
			}
			*code, err = c.present(&f, readVersion(), versionText())
			return err
		},
	}
}

func (c *console) schemaCommand(code *int) *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "print the JSON Schema of the request or the response", ArgsUsage: "request|response",
		HideHelpCommand: true, CustomHelpTemplate: literal(schemaHelp), OnUsageError: usageError,
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return usage("schema", "say which one: request or response")
			}
			text, err := spec.Schema(ctx.Args().First())
			if err != nil {
				return err
			}
			*code = c.print(string(text))
			return nil
		},
	}
}

// helpCommand replaces the one of cli, whose errors have no codes.
func (c *console) helpCommand(code *int, app *cli.App) *cli.Command {
	return &cli.Command{
		Name: "help", Usage: "print this text, or the help of a verb", ArgsUsage: "[VERB]", HideHelp: true, HideHelpCommand: true,
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() == 0 {
				*code = c.print(appHelp)
				return nil
			}
			name := ctx.Args().First()
			for _, verb := range app.Commands {
				if verb.HasName(name) && verb.CustomHelpTemplate != "" {
					return cli.ShowCommandHelp(ctx, name)
				}
			}
			if name == "help" {
				*code = c.print(appHelp)
				return nil
			}
			return unknownVerb("capsulectl", name, app.Commands)
		},
	}
}

// literal makes a template of text that prints exactly it.
func literal(text string) string { return strings.ReplaceAll(text, "{{", `{{"{{"}}`) }

// flagsFirst moves the flags of a verb before its arguments, where cli looks for
// them. Verbs that read their own flags, and bench, whose arguments are a command,
// stay as they are.
func flagsFirst(commands []*cli.Command, args []string) []string {
	for n, arg := range args {
		at := slices.IndexFunc(commands, func(cmd *cli.Command) bool { return cmd.HasName(arg) })
		if at < 0 || commands[at].SkipFlagParsing || commands[at].Name == "bench" {
			return args
		}
		if cmd := commands[at]; len(cmd.Subcommands) == 0 {
			flags, rest := flagsOf(cmd, args[n+1:])
			return slices.Concat(args[:n+1], flags, rest)
		}
		commands = commands[at].Subcommands
	}
	return args
}

// flagsOf tells the flags of a verb, with their values, from its arguments.
func flagsOf(cmd *cli.Command, args []string) (flags, rest []string) {
	for len(args) > 0 {
		arg, n := args[0], 1
		if arg == "--" {
			return flags, slices.Concat([]string{"--"}, rest, args[1:])
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest, args = append(rest, arg), args[1:]
			continue
		}
		for _, f := range cmd.Flags {
			if d, ok := f.(cli.DocGenerationFlag); ok && d.TakesValue() && slices.Contains(f.Names(), strings.TrimLeft(arg, "-")) {
				n = min(2, len(args))
			}
		}
		flags, args = append(flags, args[:n]...), args[n:]
	}
	return flags, rest
}

func noArguments(ctx *cli.Context) error {
	if ctx.NArg() == 0 {
		return nil
	}
	return usage(ctx.Command.Name, "takes no arguments: "+ctx.Args().First())
}

func usage(verb, message string) error {
	return fault.New(fault.InvalidValue, "capsulectl "+verb, message).
		WithHint("See capsulectl " + verb + " --help.")
}

// usageError gives what the flag parsing of cli says a code and a hint.
func usageError(ctx *cli.Context, err error, _ bool) error {
	text := badValue(err.Error())
	hint := "See " + ctx.Command.HelpName + " --help."
	if name, found := strings.CutPrefix(text, "flag provided but not defined: -"); found {
		text = "unknown flag " + dashed(name)
		var names []string
		for _, f := range ctx.Command.Flags {
			names = append(names, f.Names()...)
		}
		if best := nearest(strings.TrimLeft(name, "-"), names); len(best) > 1 {
			hint = "Did you mean --" + best + "?"
		}
		if ctx.Command.Name == ctx.App.Name && longOption(name) != nil {
			hint = "Flags of an execution stand after the verb: capsulectl run --" + name
		}
	}
	return fault.New(fault.InvalidValue, "", text).WithHint(hint)
}

// badValue takes what cli says of a value that it cannot read apart.
func badValue(text string) string {
	var value, name string
	if _, err := fmt.Sscanf(text, "invalid value %q for flag -%s", &value, &name); err != nil {
		return text
	}
	return "flag " + dashed(strings.TrimSuffix(name, ":")) + ": " + strconv.Quote(value) + " is not a number"
}

// dashed is a flag as it is written: one letter behind one dash.
func dashed(name string) string {
	if name = strings.TrimLeft(name, "-"); len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// elsewhere says what does the work of verbs that users of container engines look for.
var elsewhere = map[string]string{
	"exec":    "Nobody enters a sandbox that runs: its verdict is about one command. To run a command: capsulectl run -- CMD ARG...",
	"start":   "A command runs once: capsulectl run -d -- CMD ARG... starts it and prints its id.",
	"create":  "A command runs once: capsulectl run -d -- CMD ARG... starts it and prints its id.",
	"restart": "A command runs once; run it again.",
	"top":     "capsulectl stats shows what running executions use.",
	"images":  "There are no images: the host's own programs run, or those of --rootfs DIR.",
	"pull":    "There are no images: the host's own programs run, or those of --rootfs DIR.",
	"build":   "There are no images: the host's own programs run, or those of --rootfs DIR.",
	"cp":      "Files are shown to a command, not copied: run --readonly PATH, --writable PATH or --bind SRC:DEST[:rw].",
}

// unknownVerb is the fault of a verb that is none of commands, which are those of program:
// capsulectl, or a verb that has others below it.
func unknownVerb(program, name string, commands []*cli.Command) error {
	var names []string
	for _, cmd := range commands {
		names = append(names, cmd.Names()...)
	}
	hint := "See " + program + " --help."
	if program != "capsulectl" {
		hint = "There are " + program + " " + strings.Join(names, ", ") + "."
	}
	if best := nearest(name, names); best != "" {
		hint = "Did you mean " + best + "?"
	} else if strings.Contains(name, "/") {
		hint = "To run a command: capsulectl run -- CMD ARG..."
	}
	if other, ok := elsewhere[name]; ok && program == "capsulectl" {
		hint = other
	}
	return fault.New(fault.InvalidValue, "", "unknown verb "+strconv.Quote(name)).WithHint(hint)
}
