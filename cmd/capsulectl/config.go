package main

import (
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/supervisor/config"
	"github.com/capsule-run/capsule/supervisor/policy"
)

const configHelp = `Print, show or check the configuration.

Usage:
  capsulectl config default                            print a file with every key and its default
  capsulectl config show [-c FILE] [-p NAME]           print what is in force, and where each value came from
  capsulectl config check [-q] [FILE]                  tell what is wrong with a file, or with those in use

show and check take -o json and -o template=TEXT, a Go template over the JSON; check -q
prints nothing when all is right.

The configuration is the file of --config, else of $CAPSULE_CONFIG, else
$XDG_CONFIG_HOME/capsule/config.toml (~/.config), else /etc/capsule/config.toml and
/etc/capsule/conf.d. The current directory is never looked at.

Examples:
  capsulectl config default > capsule.toml
  capsulectl config check capsule.toml
  capsulectl config show -p ai-agent
  capsulectl config show -o template='{{.policy_hash}}'
`

func (c *console) configCommand(code *int) *cli.Command {
	sub := func(name, usage string, flags []cli.Flag, action func(*cli.Context) error) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, HideHelpCommand: true, CustomHelpTemplate: literal(configHelp), OnUsageError: usageError, Flags: flags, Action: action}
	}
	file := &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "configuration to use"}
	commands := []*cli.Command{
		sub("default", "print a file with every key and its default", nil, func(ctx *cli.Context) error {
			if err := noArguments(ctx); err != nil {
				return err
			}
			*code = c.print(strings.TrimSuffix(string(config.DefaultFile()), "\n"))
			return nil
		}),
		sub("show", "print what is in force", []cli.Flag{file, outputFlag(),
			&cli.StringFlag{Name: "profile", Aliases: []string{"p"}, Usage: "with this profile"}}, func(ctx *cli.Context) error {
			return c.showConfig(ctx, code)
		}),
		sub("check", "tell what is wrong", []cli.Flag{file, outputFlag(), quietFlag()}, func(ctx *cli.Context) error { return c.checkConfig(ctx, code) }),
	}
	verb := &cli.Command{Name: "config", Usage: "print, show or check the configuration", ArgsUsage: "default|show|check",
		HideHelpCommand: true, CustomHelpTemplate: literal(configHelp), OnUsageError: usageError, Subcommands: commands}
	verb.Action = func(ctx *cli.Context) error {
		if ctx.NArg() > 0 {
			return unknownVerb("capsulectl config", ctx.Args().First(), commands)
		}
		*code = c.print(configHelp)
		return nil
	}
	return verb
}

// load reads the configuration; what is built in when there are no files.
func (c *console) load(given string) (*config.Config, error) {
	files, err := config.Find(given, c.lookupEnv)
	if err != nil {
		return nil, err
	}
	return config.Load(files, c.lookupEnv)
}

func (c *console) showConfig(ctx *cli.Context, code *int) error {
	if err := noArguments(ctx); err != nil {
		return err
	}
	f, err := formatOf(ctx)
	if err != nil {
		return err
	}
	loaded, err := c.load(ctx.String("config"))
	if err != nil {
		return err
	}
	profile := ctx.String("profile")
	if profile == "" {
		profile = c.environment(config.VariableProfile)
	}
	values, err := loaded.Show(profile, uint32(os.Geteuid()))
	if err != nil {
		return err
	}
	p, err := policy.New(loaded)
	if err != nil {
		return err
	}
	if f.json {
		*code, err = c.present(&f, map[string]any{"files": append([]string{}, loaded.Files()...), "profile": profile, "policy_hash": p.Hash(), "values": values}, "")
		return err
	}
	t := &table{}
	t.row("KEY", "VALUE", "FROM")
	for _, v := range values {
		t.row(v.Key, printable(string(v.Value)), printable(v.Origin))
	}
	*code = c.printTable(t)
	return nil
}

func (c *console) checkConfig(ctx *cli.Context, code *int) error {
	if ctx.NArg() > 1 {
		return usage("config check", "takes only one file: "+ctx.Args().Get(1))
	}
	f, err := formatOf(ctx)
	if err != nil {
		return err
	}
	given := ctx.String("config")
	if ctx.NArg() == 1 {
		given = ctx.Args().First()
	}
	loaded, err := c.load(given)
	if err != nil {
		return err
	}
	p, err := policy.New(loaded)
	if err != nil {
		return err
	}
	text := "no configuration file; what is built in holds"
	if files := loaded.Files(); len(files) > 0 {
		text = strings.Join(files, ", ") + ": right"
	}
	*code, err = c.present(&f, map[string]any{"files": append([]string{}, loaded.Files()...), "policy_hash": p.Hash()}, text)
	return err
}
