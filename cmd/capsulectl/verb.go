package main

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/spec/fault"
)

// verb is one that talks to a supervisor. Its options are a table like that of
// the run verb, read by the same parser; flags may also follow the ids.
type verb struct {
	name string
	// usage is the line of the list of verbs.
	usage string
	// args are the placeholders of the arguments, and least and most their number.
	args        string
	least, most int
	// about and after frame the flags in the help text.
	about, after string
	options      []option
	run          func(ctx context.Context, s *session) (int, error)
}

// unbounded is the most of a verb that takes any number of arguments.
const unbounded = 1 << 20

// call is what the arguments of a verb say.
type call struct {
	invocation
	verb *verb
	// args are the arguments that are not flags.
	args []string

	all, quiet, follow, force, details               bool
	noStdin, noFollow, noStream, noStreamGiven, plot bool
	stdoutOnly, stderrOnly, timestamps               bool
	tailGiven, graceGiven                            bool
	limit, tail                                      int
	since                                            uint64
	sinceGiven                                       bool
	sinceTime                                        time.Time
	grace, before                                    time.Duration
	signal                                           syscall.Signal
	statuses                                         []string
	labels                                           map[string]string
	idPrefix                                         string
}

// session is one call of a verb with the supervisor that it talks to.
type session struct {
	*console
	*call
	link *link
	rep  *reporter
}

// verbTable is all of them, in the order of the help text.
func verbTable() []verb {
	return []verb{
		psVerb(), inspectVerb(), logsVerb(), attachVerb(), waitVerb(), stopVerb(), killVerb(), rmVerb(),
		statsVerb(), eventsVerb(), pruneVerb(), infoVerb(),
	}
}

// switchOption is one that sets a bool of the call.
func switchOption(name string, short byte, usage string, to func(*call) *bool) option {
	return option{name: name, short: short, usage: usage, group: groupFlags,
		take: func(k *call, v string) error { return parseSwitch(to(k), v) }}
}

const groupFlags = "Flags"

// sharedOptions are those of every verb.
func sharedOptions() []option {
	return []option{
		{name: "output", short: 'o', value: "FORMAT", group: groupFlags, mode: modeOutput, usage: outputUsage},
		{name: "pretty", group: groupFlags, mode: func(i *invocation, v string) error { return parseSwitch(&i.pretty, v) }, usage: "indent the JSON"},
		{name: "address", value: "SOCKET", group: groupFlags, mode: modeAddress,
			usage: "the daemon to ask (default $CAPSULE_ADDRESS, else capsuled.sock of the state directory)"},
		{name: "embedded", group: groupFlags, mode: func(i *invocation, v string) error { return parseSwitch(&i.embedded, v) },
			usage: "use no daemon even if there is one"},
		{name: "help", short: 'h', group: groupFlags, mode: func(i *invocation, v string) error { return parseSwitch(&i.help, v) }, usage: "print this text"},
	}
}

// table are the verb's own options and the shared ones.
func (v *verb) table() []option {
	return append(v.options[:len(v.options):len(v.options)], sharedOptions()...)
}

// parse reads the arguments after the verb. The call is usable as far as it was understood.
func (v *verb) parse(args []string) (*call, error) {
	k := &call{verb: v}
	p := parser{args: args, table: v.table(), hint: v.flagHint}
	p.take = func(o *option, value string) error {
		if o.take != nil {
			return o.take(k, value)
		}
		return o.mode(&k.invocation, value)
	}
	for {
		for p.flag() {
		}
		if len(p.args) == 0 {
			break
		}
		k.args, p.args = append(k.args, p.args[0]), p.args[1:]
	}
	refuse := func(code fault.Code, message string) {
		p.faults = append(p.faults, usage(v.name, message).(*fault.Fault))
		p.faults[len(p.faults)-1].Code = code
	}
	switch n := len(k.args); {
	case k.help:
	case n < v.least:
		refuse(fault.MissingField, "give the id of an execution; capsulectl ps shows them")
	case n > v.most && v.most == 0:
		refuse(fault.InvalidValue, "takes no arguments: "+strconv.Quote(k.args[0]))
	case n > v.most:
		refuse(fault.InvalidValue, "takes only one id: "+strconv.Quote(k.args[v.most]))
	}
	if k.embedded && k.address != "" && !k.help {
		refuse(fault.InvalidValue, "--embedded cannot be combined with --address")
	}
	return k, p.faults.Err()
}

// flagHint proposes what may have been meant by a flag that does not exist.
func (v *verb) flagHint(name string) string {
	if _, err := strconv.Atoi(name); err == nil && v.name == "kill" {
		return "Did you mean --signal " + name + "?"
	}
	if name == "format" {
		return "Did you mean --output json, or --output template=TEXT?"
	}
	table := v.table()
	var names []string
	for i := range table {
		names = append(names, table[i].name)
	}
	if best := nearest(name, names); len(name) > 1 && best != "" {
		return "Did you mean --" + best + "?"
	}
	return "See capsulectl " + v.name + " --help."
}

// help is the help text of the verb.
func (v *verb) help() string {
	var b strings.Builder
	b.WriteString(v.about + "\n")
	table := v.table()
	width := 0
	for i := range table {
		width = max(width, len(table[i].spelling()))
	}
	b.WriteString("Flags:\n")
	for i := range table {
		name := table[i].spelling()
		b.WriteString("  " + name + strings.Repeat(" ", width-len(name)+2) + table[i].usage + "\n")
	}
	if v.after != "" {
		b.WriteString("\n" + v.after)
	}
	return b.String()
}

// command is the verb as the App shows it.
func (c *console) command(v verb, code *int) *cli.Command {
	table := v.table()
	flags := make([]cli.Flag, len(table))
	for i := range table {
		flags[i] = &table[i]
	}
	return &cli.Command{
		Name: v.name, Usage: v.usage, ArgsUsage: v.args, Flags: flags,
		SkipFlagParsing: true, HideHelp: true, HideHelpCommand: true, CustomHelpTemplate: literal(v.help()),
		Action: func(ctx *cli.Context) error {
			*code = c.call(&v, ctx.Args().Slice())
			return nil
		},
	}
}

// call runs a verb and returns the exit status.
func (c *console) call(v *verb, args []string) (code int) {
	k, err := v.parse(args)
	k.jsonOutput = k.jsonOutput || err != nil && wantsJSON(args)
	rep := &reporter{console: c, inv: &k.invocation, created: time.Now()}
	defer func() {
		if p := recover(); p != nil {
			code = rep.crashed(p)
		}
	}()
	switch {
	case err != nil:
		return rep.refuse(err)
	case k.help:
		return c.print(v.help())
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l, err := c.connect(ctx, k.address, k.embedded, nil) // what has started is not judged again
	if err != nil {
		return rep.refuse(err)
	}
	defer l.close()
	code, err = v.run(ctx, &session{console: c, call: k, link: l, rep: rep})
	if err != nil {
		return rep.refuse(err)
	}
	return code
}
