package main

import (
	"flag"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// option is one flag of a verb. It implements cli.Flag and its relatives,
// so that urfave/cli can show it, but parse (parse.go) reads it: the standard
// flag package has no clusters of short options, and cli's slices split on commas.
type option struct {
	// name is the long name without dashes.
	name string
	// short is the one-letter name, zero for none.
	short byte
	// value is the placeholder of the argument in help texts; empty: a switch.
	value string
	// usage is the help text, one sentence without a full stop.
	usage string
	// group is the heading of the help text under which the option stands;
	// empty: hidden.
	group string
	// pointer is the request field (RFC 6901) that the option sets, so that a
	// fault of validation can name the flag. Empty: none.
	pointer string
	// mode acts on the invocation itself; exactly one of mode, apply and take is set.
	mode func(*invocation, string) error
	// apply changes the request, after the profile and in command-line order.
	apply func(*builder, string) error
	// take acts on the call of a verb other than run.
	take func(*call, string) error
}

// String is the flag's column and its usage as help texts show them.
func (o *option) String() string { return o.spelling() + "\t" + o.usage }

// spelling is "-t, --timeout DURATION", indented so that long names align.
func (o *option) spelling() string {
	var b strings.Builder
	if o.short != 0 {
		b.WriteString("-" + string(o.short) + ", ")
	} else {
		b.WriteString("    ")
	}
	b.WriteString("--" + o.name)
	if o.value != "" {
		b.WriteString(" " + o.value)
	}
	return b.String()
}

// Apply registers nothing: the run verb skips the flag parsing of cli.
func (o *option) Apply(*flag.FlagSet) error { return nil }

// Names are the long and the short name.
func (o *option) Names() []string {
	if o.short != 0 {
		return []string{o.name, string(o.short)}
	}
	return []string{o.name}
}

// IsSet is always false: the invocation knows what was given.
func (o *option) IsSet() bool { return false }

// IsVisible is false for options that are only known in order to be refused.
func (o *option) IsVisible() bool { return o.group != "" }

// GetCategory is the heading of the help text.
func (o *option) GetCategory() string { return o.group }

// wrap turns the error of a setter into a fault that names the flag. A fault
// keeps its code and its hint; without one a wrong form is mended by the flag's own help.
func (o *option) wrap(err error) *fault.Fault {
	f := *fault.From(err, fault.InvalidValue)
	if f.Hint == "" && (f.Code == fault.InvalidValue || f.Code == fault.MissingField) {
		f.Hint = strings.TrimSpace(o.spelling()) + ": " + o.usage + "."
	}
	if f.Op == "" || strings.HasPrefix(f.Op, "parse ") {
		f.Op = "flag --" + o.name
	} else if !strings.HasPrefix(f.Op, "flag ") {
		f.Op = "flag --" + o.name + ": " + f.Op
	}
	if f.Field == "" {
		f.Field = o.pointer
	}
	return &f
}
