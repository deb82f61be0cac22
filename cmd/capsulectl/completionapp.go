package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// verbWords are the verbs of the first argument.
func verbWords() string {
	var words []string
	for _, verb := range (&console{}).app(new(int)).Commands {
		words = append(words, verb.Name)
	}
	return strings.Join(words, " ")
}

// appVerb is a verb whose flags cli parses, as shells complete it.
type appVerb struct {
	name string
	// words are what can follow it: subcommands or fixed arguments.
	words string
	// flags are those of the verb and its subcommands.
	flags []appFlag
	// ids is the subcommand that an id of an execution follows; empty: none.
	ids string
}

type appFlag struct {
	name, usage string
	// short is its letter; empty: it has none.
	short string
	value bool
}

// appVerbs are the verbs that verbTable does not have, but for run.
func appVerbs() []appVerb {
	known := []string{"run"}
	for _, v := range verbTable() {
		known = append(known, v.name)
	}
	var all []appVerb
	for _, cmd := range (&console{}).app(new(int)).Commands {
		if slices.Contains(known, cmd.Name) {
			continue
		}
		v := appVerb{name: cmd.Name}
		v.add(cmd.Flags)
		var words []string
		for _, sub := range cmd.Subcommands {
			words = append(words, sub.Name)
			v.add(sub.Flags)
		}
		switch cmd.Name {
		case "bundle":
			v.ids = "export"
		case "help":
			words = strings.Fields(verbWords())
		case "schema":
			words = []string{"request", "response"}
		case "completion":
			words = []string{"bash", "zsh", "fish"}
		}
		v.words = strings.Join(words, " ")
		all = append(all, v)
	}
	return all
}

// add appends flags that are not there yet, by their long names.
func (v *appVerb) add(flags []cli.Flag) {
	for _, f := range flags {
		name := f.Names()[0]
		if slices.ContainsFunc(v.flags, func(have appFlag) bool { return have.name == name }) {
			continue
		}
		flag := appFlag{name: name}
		for _, other := range f.Names()[1:] {
			if len(other) == 1 {
				flag.short = other
			}
		}
		if d, ok := f.(cli.DocGenerationFlag); ok {
			flag.usage, flag.value = d.GetUsage(), d.TakesValue()
		}
		v.flags = append(v.flags, flag)
	}
}

// choices are the fixed words that the flag's argument can be.
func (f *appFlag) choices() string {
	return choices(&option{name: f.name})
}

// spellings are the flags with their dashes.
func (v *appVerb) spellings() string {
	spellings := []string{"--help"}
	for _, f := range v.flags {
		spellings = append(spellings, "--"+f.name)
	}
	return strings.Join(spellings, " ")
}

func bashAppVerbs() string {
	var b strings.Builder
	for _, v := range appVerbs() {
		b.WriteString("    " + v.name + ")\n")
		var cases string
		for _, f := range v.flags {
			if words := f.choices(); f.value && words != "" {
				spellings := "--" + f.name
				if f.short != "" {
					spellings += "|-" + f.short
				}
				cases += "        " + spellings + `) COMPREPLY=($(compgen -W "` + words + `" -- "$cur")); return ;;` + "\n"
			}
		}
		if cases != "" {
			b.WriteString("        case $prev in\n" + cases + "        esac\n")
		}
		b.WriteString("        case $cur in\n        -*) COMPREPLY=($(compgen -W \"" + v.spellings() + "\" -- \"$cur\")) ;;\n")
		if v.ids != "" {
			b.WriteString("        *) case $COMP_CWORD:${COMP_WORDS[2]} in\n" +
				"            2:*) COMPREPLY=($(compgen -W \"" + v.words + "\" -- \"$cur\")) ;;\n" +
				"            3:" + v.ids + ") COMPREPLY=($(compgen -W \"$(" + listAllIDs + ")\" -- \"$cur\")) ;;\n" +
				"            *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n            esac ;;\n")
		} else if v.words != "" {
			b.WriteString("        *) [ \"$COMP_CWORD\" -ne 2 ] || COMPREPLY=($(compgen -W \"" + v.words + "\" -- \"$cur\")) ;;\n")
		}
		b.WriteString("        esac ;;\n")
	}
	return b.String()
}

func zshAppVerbs() string {
	var b strings.Builder
	for _, v := range appVerbs() {
		b.WriteString("    " + v.name + ")\n        if [[ $PREFIX == -* ]]; then compadd -- " + v.spellings() + "\n")
		if v.words != "" {
			b.WriteString("        elif (( CURRENT == 3 )); then compadd " + v.words + "\n")
		}
		if v.ids != "" {
			b.WriteString("        elif (( CURRENT == 4 )) && [[ $words[3] == " + v.ids + " ]]; then compadd $(" + listAllIDs + ")\n")
		}
		b.WriteString("        else _files\n        fi ;;\n")
	}
	return b.String()
}

func fishAppVerbs(b *strings.Builder) {
	for _, v := range appVerbs() {
		line := "complete -c capsulectl -n '__fish_seen_subcommand_from " + v.name + "'"
		if v.words != "" {
			b.WriteString(line + " -F -a '" + v.words + "'\n")
		} else {
			b.WriteString(line + " -F\n")
		}
		if v.ids != "" {
			b.WriteString("complete -c capsulectl -n '__fish_seen_subcommand_from " + v.name + "; and __fish_seen_subcommand_from " + v.ids + "' -a '(" + listAllIDs + ")'\n")
		}
		for _, f := range v.flags {
			b.WriteString(line + " -l " + f.name)
			if f.short != "" {
				b.WriteString(" -s " + f.short)
			}
			switch words := f.choices(); {
			case f.value && words != "":
				b.WriteString(" -x -a '" + strings.TrimPrefix(words, "$") + "'")
			case f.value:
				b.WriteString(" -r -F")
			}
			b.WriteString(" -d '" + strings.ReplaceAll(f.usage, "'", `\'`) + "'\n")
		}
	}
}
