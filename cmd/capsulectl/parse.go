package main

import (
	"strconv"
	"strings"
	"text/template"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// invocation is what the arguments of `capsulectl run` say.
type invocation struct {
	// command is the payload's program and arguments, from the first argument
	// that is not a flag, or from `--`.
	command []string
	// settings change the request; they are in command-line order.
	settings []setting

	jsonInput  bool // --json: the request stands on stdin
	jsonOutput bool // --json or --output json: the response goes to stdout
	// template is --output template=TEXT: what is shown of the document; nil: all of it.
	template *template.Template
	pretty   bool   // --pretty
	verbose  bool   // --verbose
	quiet    bool   // --quiet
	dryRun   bool   // --dry-run
	stdin    bool   // --stdin
	help     bool   // --help
	envelope bool   // --exit-code-mode envelope
	id       string // --execution-id
	profile  string // --profile
	detach   bool   // --detach
	embedded bool   // --embedded
	address  string // --address
	config   string // --config
	create   string // --create-config
	file     string // --file
	lang     string // --lang
	bundle   string // the directory of `bundle run`

	// rules are what the configuration says; nil: there is none.
	rules *policy.Policy
}

// documented says that a document makes the request, and not flags.
func (i *invocation) documented() bool { return i.jsonInput || i.file != "" }

// setting is one request-changing flag with its argument.
type setting struct {
	option *option
	value  string
}

// parse reads the arguments after the word run. Parsing stops at the first
// argument that is not a flag, so that `run ls -l` gives -l to ls. Every problem
// is reported, not only the first; the invocation is usable as far as it was
// understood.
func parse(args []string) (*invocation, error) {
	inv := new(invocation)
	p := parser{args: args, table: options[:], hint: unknownFlagHint}
	p.take = func(o *option, value string) error {
		if o.apply != nil {
			inv.settings = append(inv.settings, setting{o, value})
			return nil
		}
		return o.mode(inv, value)
	}
	for p.flag() {
	}
	inv.command = p.args
	p.check(inv)
	return inv, p.faults.Err()
}

// parser reads the flags of one verb.
type parser struct {
	// args are those that are not read yet.
	args  []string
	table []option
	// take acts on a flag that was given.
	take func(o *option, value string) error
	// hint proposes something for a flag that does not exist.
	hint   func(name string) string
	faults fault.List
	// ended: `--` was read.
	ended bool
}

// flag reads one flag, or `--`; false: the next argument is none.
func (p *parser) flag() bool {
	if p.ended || len(p.args) == 0 || len(p.args[0]) < 2 || p.args[0][0] != '-' {
		return false
	}
	arg := p.args[0]
	p.args = p.args[1:]
	switch {
	case arg == "--":
		p.ended = true
	case strings.HasPrefix(arg, "--"):
		p.long(arg[2:])
	default:
		p.cluster(arg[1:])
	}
	return !p.ended
}

// long reads name or name=value.
func (p *parser) long(arg string) {
	name, value, given := strings.Cut(arg, "=")
	o := findLong(p.table, name)
	switch {
	case o == nil:
		p.unknown("--" + name)
	case o.value == "" && !given:
		p.set(o, "true")
	case o.value == "" || given:
		p.set(o, value)
	default:
		p.setNext(o)
	}
}

// cluster reads short options behind one dash: -i, -iv, -t5s, -t=5s, -t 5s.
func (p *parser) cluster(arg string) {
	if name, _, _ := strings.Cut(arg, "="); len(name) > 1 && findLong(p.table, name) != nil {
		p.unknown("-" + name)
		return
	}
	for i := 0; i < len(arg); i++ {
		o := findShort(p.table, arg[i])
		if o == nil {
			p.unknown("-" + arg[i:i+1])
			return
		}
		if o.value == "" {
			p.set(o, "true")
			continue
		}
		if rest := arg[i+1:]; rest != "" {
			p.set(o, strings.TrimPrefix(rest, "="))
		} else {
			p.setNext(o)
		}
		return
	}
}

// setNext gives the option the next argument, whatever it looks like.
func (p *parser) setNext(o *option) {
	if len(p.args) == 0 {
		p.faults = append(p.faults, o.wrap(fault.New(fault.MissingField, "", "needs an argument")))
		return
	}
	value := p.args[0]
	p.args = p.args[1:]
	p.set(o, value)
}

func (p *parser) set(o *option, value string) {
	if err := p.take(o, value); err != nil {
		p.faults = append(p.faults, o.wrap(err))
	}
}

func (p *parser) unknown(spelling string) {
	f := fault.New(fault.InvalidValue, "", "unknown flag "+spelling)
	f.Hint = p.hint(strings.TrimLeft(spelling, "-"))
	p.faults = append(p.faults, f)
}

// check refuses combinations that cannot mean anything.
func (p *parser) check(inv *invocation) {
	refuse := func(code fault.Code, message, hint string) {
		p.faults = append(p.faults, fault.New(code, "", message).WithHint(hint))
	}
	if inv.help || inv.create != "" {
		return
	}
	if inv.embedded && inv.address != "" {
		refuse(fault.InvalidValue, "--embedded cannot be combined with --address", "Leave one of them out.")
	}
	if inv.detach && inv.dryRun {
		refuse(fault.InvalidValue, "--detach cannot be combined with --dry-run", "A dry run runs nothing that could be left alone.")
	}
	if inv.quiet && inv.verbose {
		refuse(fault.InvalidValue, "--quiet cannot be combined with --verbose", "Leave one of them out.")
	}
	if !inv.jsonOutput && inv.pretty {
		refuse(fault.InvalidValue, "--pretty needs --json or --output json", "Add --output json.")
	}
	if !inv.jsonOutput && inv.envelope {
		refuse(fault.InvalidValue, "--exit-code-mode envelope needs --json or --output json", "Add --output json.")
	}
	if inv.documented() {
		p.checkDocument(inv)
		return
	}
	if inv.lang != "" {
		if inv.stdin && scriptOnStdin(inv.command) {
			refuse(fault.InvalidValue, "--stdin cannot be combined with a script on stdin", "Put the script into a file: capsulectl run -i --lang "+inv.lang+" FILE")
		}
		return
	}
	if len(inv.command) == 0 && len(p.faults) == 0 {
		f := fault.New(fault.MissingField, "", "no command given")
		p.faults = append(p.faults, f.WithHint("Say what to run, for example: capsulectl run -- python3 -c 'print(6*7)'"))
	}
}

// checkDocument refuses what the request in a document says already.
func (p *parser) checkDocument(inv *invocation) {
	const hint = "Everything about the execution stands in the request."
	from := "--json"
	if inv.file != "" {
		from = "--file"
	}
	refuse := func(message string) {
		p.faults = append(p.faults, fault.New(fault.InvalidValue, "", message).WithHint(hint))
	}
	for _, s := range inv.settings {
		refuse("--" + s.option.name + " cannot be combined with " + from)
	}
	if inv.lang != "" {
		refuse("--lang cannot be combined with " + from)
	}
	if inv.stdin && (inv.file == "" || inv.file == "-") {
		refuse("--stdin cannot be combined with a request on stdin")
	}
	if len(inv.command) > 0 {
		refuse("a command cannot be combined with " + from + ": " + strconv.Quote(inv.command[0]))
	}
}

// parseSwitch reads the argument of a switch: none, or =true and =false.
func parseSwitch(to *bool, value string) error {
	v, err := strconv.ParseBool(value)
	if err != nil {
		return fault.New(fault.InvalidValue, "", strconv.Quote(value)+" is neither true nor false").
			WithHint("The flag is a switch; it takes no argument.")
	}
	*to = v
	return nil
}

// longOption looks a long name of the run verb up; nil when there is none.
func longOption(name string) *option { return findLong(options[:], name) }

// findLong looks a long name up; nil when there is none.
func findLong(table []option, name string) *option {
	for i := range table {
		if table[i].name == name {
			return &table[i]
		}
	}
	return nil
}

// findShort looks a one-letter name up; nil when there is none.
func findShort(table []option, letter byte) *option {
	for i := range table {
		if table[i].short == letter {
			return &table[i]
		}
	}
	return nil
}

// wantsJSON guesses from arguments that could not be read whether the caller
// expects a JSON document: a program that does must get one for every outcome.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch arg {
		case "--":
			return false
		case "--json", "-json", "--json=true", "--output=json", "-ojson", "-o=json":
			return true
		case "-o", "--output":
			if i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}
