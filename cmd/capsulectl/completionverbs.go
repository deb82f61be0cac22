package main

import "strings"

// listProfileNames is what a shell runs to complete the name of a profile.
const listProfileNames = "capsulectl completion profiles 2>/dev/null"

// listAllIDs is what a shell runs to complete the id of any execution.
const listAllIDs = "capsulectl ps -aq 2>/dev/null"

// listIDs is what a shell runs to complete the id of an execution: of those
// that live, where the verb has no use for others.
func listIDs(v *verb) string {
	switch v.name {
	case "attach", "stop", "kill", "stats":
		return "capsulectl ps -q 2>/dev/null"
	}
	return listAllIDs
}

// bashVerbs are the cases of the verbs that talk to a supervisor.
func bashVerbs() string {
	var b strings.Builder
	for _, v := range verbTable() {
		var flags []string
		for _, o := range v.table() {
			flags = append(flags, "--"+o.name)
		}
		b.WriteString("    " + v.name + `)
        case $prev in
        -o|--output) COMPREPLY=($(compgen -W "human table json template=" -- "$cur")); return ;;
        --address) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        esac
        case $cur in
        -*) COMPREPLY=($(compgen -W "` + strings.Join(flags, " ") + `" -- "$cur")) ;;
`)
		if v.most > 0 {
			b.WriteString(`        *) COMPREPLY=($(compgen -W "$(` + listIDs(&v) + `)" -- "$cur")) ;;
`)
		}
		b.WriteString("        esac ;;\n")
	}
	return b.String()
}

// zshVerbs are the same for zsh.
func zshVerbs() string {
	var b strings.Builder
	for _, v := range verbTable() {
		b.WriteString("    " + v.name + ")\n        shift words; (( CURRENT-- ))\n        _arguments -S")
		for _, o := range v.table() {
			b.WriteString(" \\\n            '*--" + o.name + "[" + zshQuote(o.usage) + "]" + zshValue(&o) + "'")
			if o.short != 0 {
				b.WriteString(" '*-" + string(o.short) + "[" + zshQuote(o.usage) + "]" + zshValue(&o) + "'")
			}
		}
		if v.most > 0 {
			b.WriteString(" \\\n            '*:id:($(" + listIDs(&v) + "))'")
		}
		b.WriteString(" ;;\n")
	}
	return b.String()
}

// zshValue describes the argument of an option, if it has one.
func zshValue(o *option) string {
	switch {
	case o.value == "":
		return ""
	case fileValue(o):
		return ":" + o.name + ":_files"
	case choices(o) != "":
		return ":" + o.name + ":(" + choices(o) + ")"
	}
	return ":" + o.name + ": "
}

// fishFlags adds the flags of one verb.
func fishFlags(b *strings.Builder, verb string, table []option) {
	for i := range table {
		o := &table[i]
		if !o.IsVisible() {
			continue
		}
		b.WriteString("complete -c capsulectl -n '__fish_seen_subcommand_from " + verb + "' -l " + o.name)
		if o.short != 0 {
			b.WriteString(" -s " + string(o.short))
		}
		switch {
		case o.value == "":
		case fileValue(o):
			b.WriteString(" -r -F")
		case choices(o) != "":
			b.WriteString(" -x -a '" + strings.TrimPrefix(choices(o), "$") + "'")
		default:
			b.WriteString(" -x")
		}
		b.WriteString(" -d '" + strings.ReplaceAll(o.usage, "'", `\'`) + "'\n")
	}
}
