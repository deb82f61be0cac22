package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/spec/fault"
)

// completionCommand prints scripts that are complete in themselves, but for ids:
// the shell need not start capsulectl at every key, and no hidden argument of
// capsulectl can be mistaken for one of the payload.
func (c *console) completionCommand(code *int) *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a completion script", ArgsUsage: "bash|zsh|fish",
		HideHelpCommand: true, CustomHelpTemplate: literal(completionHelp), OnUsageError: usageError,
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return usage("completion", "say for which shell: bash, zsh or fish")
			}
			if ctx.Args().First() == "profiles" {
				return c.profileNames(code)
			}
			script, err := completion(ctx.Args().First())
			if err != nil {
				return err
			}
			*code = c.print(script)
			return nil
		},
	}
}

func completion(shell string) (string, error) {
	switch shell {
	case "bash":
		return completionBash(), nil
	case "zsh":
		return completionZsh(), nil
	case "fish":
		return completionFish(), nil
	}
	return "", fault.New(fault.InvalidValue, "capsulectl completion", "no script for "+shell).
		WithHint("There are scripts for bash, zsh and fish.")
}

// profileNames prints what --profile can be here. The shells call it.
func (c *console) profileNames(code *int) error {
	loaded, err := c.load("")
	if err != nil {
		return err
	}
	*code = c.print(strings.Join(loaded.ProfileNames(), "\n"))
	return nil
}

// fileValue says that the option's argument is a path here.
func fileValue(o *option) bool {
	switch o.name {
	case "file", "env-file", "readonly", "writable", "bind", "rootfs", "seccomp", "address", "config", "create-config":
		return true
	}
	return false
}

// choices are the fixed words that an option's argument can be.
func choices(o *option) string {
	switch o.name {
	case "output":
		return "human table json template="
	case "lang":
		return languageNames(" ")
	case "with":
		return "runc crun"
	case "output-policy":
		return "truncate tail kill"
	case "exit-code-mode":
		return "payload envelope"
	case "profile":
		return "$(" + listProfileNames + ")"
	}
	return ""
}

func completionBash() string {
	var flags, withValue, files, cases []string
	for i := range options {
		o := &options[i]
		if !o.IsVisible() {
			continue
		}
		spellings := []string{"--" + o.name}
		if o.short != 0 {
			spellings = append(spellings, "-"+string(o.short))
		}
		flags = append(flags, "--"+o.name)
		switch pattern := strings.Join(spellings, "|"); {
		case o.value == "":
		case fileValue(o):
			files = append(files, spellings...)
		case choices(o) != "":
			cases = append(cases, "        "+pattern+`) COMPREPLY=($(compgen -W "`+choices(o)+`" -- "$cur")); return ;;`)
		default:
			withValue = append(withValue, spellings...)
		}
	}
	cases = append(cases,
		"        "+strings.Join(files, "|")+`) COMPREPLY=($(compgen -f -- "$cur")); return ;;`,
		"        "+strings.Join(withValue, "|")+") return ;;")
	return `# bash completion for capsulectl
_capsulectl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "` + verbWords() + `" -- "$cur")); return
    fi
    case ${COMP_WORDS[1]} in
    run)
        case $prev in
` + strings.Join(cases, "\n") + `
        esac
        case $cur in
        -*) COMPREPLY=($(compgen -W "` + strings.Join(flags, " ") + `" -- "$cur")) ;;
        *) COMPREPLY=($(compgen -c -f -- "$cur")) ;;
        esac ;;
` + bashVerbs() + bashAppVerbs() + `    esac
}
complete -o filenames -o bashdefault -F _capsulectl capsulectl
`
}

func completionZsh() string {
	var args []string
	for i := range options {
		o := &options[i]
		if !o.IsVisible() {
			continue
		}
		usage := "[" + zshQuote(o.usage) + "]"
		value := zshValue(o)
		args = append(args, "'*--"+o.name+usage+value+"'")
		if o.short != 0 {
			args = append(args, "'*-"+string(o.short)+usage+value+"'")
		}
	}
	return `#compdef capsulectl
_capsulectl() {
    if (( CURRENT == 2 )); then
        compadd ` + verbWords() + `
        return
    fi
    case $words[2] in
    run)
        shift words; (( CURRENT-- ))
        _arguments -S ` + strings.Join(args, " \\\n            ") + ` \
            '(-)1:command: _command_names -e' '*::arguments: _normal' ;;
` + zshVerbs() + zshAppVerbs() + `    esac
}
# Read from fpath this file is the body of the function at its first call.
if [ "$funcstack[1]" = _capsulectl ]; then _capsulectl "$@"; else compdef _capsulectl capsulectl; fi
`
}

// zshQuote protects text inside an _arguments description in single quotes.
func zshQuote(s string) string {
	return strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`).Replace(s)
}

func completionFish() string {
	var b strings.Builder
	b.WriteString("# fish completion for capsulectl\ncomplete -c capsulectl -f\n")
	for _, verb := range strings.Fields(verbWords()) {
		b.WriteString("complete -c capsulectl -n __fish_use_subcommand -a " + verb + "\n")
	}
	b.WriteString("complete -c capsulectl -n '__fish_seen_subcommand_from run' -a '(__fish_complete_command)'\n")
	fishFlags(&b, "run", options[:])
	for _, v := range verbTable() {
		fishFlags(&b, v.name, v.table())
		if v.most > 0 {
			b.WriteString("complete -c capsulectl -n '__fish_seen_subcommand_from " + v.name + "' -a '(" + listIDs(&v) + ")'\n")
		}
	}
	fishAppVerbs(&b)
	return b.String()
}
