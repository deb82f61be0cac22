package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// leaves are the verbs and sub-verbs that do something, by what is typed.
func leaves(commands []*cli.Command, path string) map[string]*cli.Command {
	all := map[string]*cli.Command{}
	for _, cmd := range commands {
		name := strings.TrimSpace(path + " " + cmd.Name)
		if len(cmd.Subcommands) == 0 {
			all[name] = cmd
		}
		for sub, c := range leaves(cmd.Subcommands, name) {
			all[sub] = c
		}
	}
	return all
}

// withoutOutput are the verbs whose output has one form, and why.
var withoutOutput = map[string]string{
	"attach": "", "logs": "", // they have the flag of all verbs, for what is refused
	"schema": "it is JSON", "seccomp show": "it is JSON", "config default": "it is a file",
	"completion": "it is a script", "help": "it is text", "kube": "it is JSON",
	"bundle create": "it prints nothing", "bundle export": "it prints nothing",
}

// TestEveryVerbIsLikeTheOthers: each verb and sub-verb has a help text with an
// example of it, and the same forms of output.
func TestEveryVerbIsLikeTheOthers(t *testing.T) {
	all := leaves((&console{}).app(new(int)).Commands, "")
	if len(all) < 34 {
		t.Errorf("only %d verbs were found", len(all))
	}
	for name, cmd := range all {
		b := newBench("")
		help := name + " --help"
		if name == "help" {
			help = name
		}
		if code := b.main(strings.Fields(help)); code != 0 || b.errOut.String() != "" {
			t.Errorf("%s: exit %d: %s", help, code, b.errOut.String())
		}
		text := b.out.String()
		if _, examples, _ := strings.Cut(text, "\nExamples:\n"); name != "help" && !strings.Contains(examples, "capsulectl "+name) {
			t.Errorf("the help of %s has no example of it", name)
		}
		var flags []string
		for _, f := range cmd.Flags {
			flags = append(flags, f.Names()...)
		}
		why, exempt := withoutOutput[name]
		switch output := slices.Contains(flags, "output") || cmd.SkipFlagParsing && len(cmd.Flags) == 0 && name != "kube"; {
		case output == (exempt && why != ""):
			t.Errorf("%s: -o is there: %v, and should not be: %v", name, output, exempt)
		case output && !strings.Contains(text, "template=TEXT"):
			t.Errorf("the help of %s does not tell of -o template=TEXT", name)
		}
		if slices.Contains(flags, "quiet") && !strings.Contains(text, "-q") {
			t.Errorf("the help of %s does not tell of -q", name)
		}
		if slices.Contains(flags, "output") {
			refused(t, name)
		}
	}
}

// refused: a form of output that does not exist is told with those that do, by name.
func refused(t *testing.T, name string) {
	t.Helper()
	for _, form := range []string{"-o=yaml", "-o=template={{.a"} {
		b := newBench("")
		code := b.main(append(strings.Fields(name), form))
		if said := b.errOut.String(); code != spec.ExitRefused || b.out.String() != "" || !strings.Contains(said, "flag --output") || !strings.Contains(said, "emplate") {
			t.Errorf("%s %s: exit %d, %q, %q", name, form, code, b.out.String(), said)
		}
	}
}

func TestFormat(t *testing.T) {
	list := []map[string]int{{"a": 1}, {"a": 2}}
	for _, c := range []struct {
		arg   string
		quiet bool
		value any
		want  string
	}{
		{"human", false, list, "for people\n"},
		{"table", false, list, "for people\n"},
		{"json", false, map[string]int{"a": 1}, "{\n  \"a\": 1\n}\n"},
		{"template={{.a}}", false, list, "1\n2\n"},
		{"template={{.a}}", false, []int{}, ""},
		{"json", true, list, ""},
		{"human", true, list, ""},
	} {
		f, err := parseFormat(c.arg)
		if err != nil {
			t.Fatal(err)
		}
		f.quiet = c.quiet
		b := newBench("")
		if code, err := b.present(&f, c.value, "for people"); code != 0 || err != nil || b.out.String() != c.want {
			t.Errorf("%s, quiet %v: exit %d, %v, %q; want %q", c.arg, c.quiet, code, err, b.out.String(), c.want)
		}
	}
	f, err := parseFormat("template={{.absent}}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newBench("").present(&f, list, ""); fault.From(err, fault.IO).Code != fault.InvalidValue {
		t.Errorf("a name that is not there: %v", err)
	}
}

// TestFormsOfOutput asks verbs that need no host for each form.
func TestFormsOfOutput(t *testing.T) {
	for args, want := range map[string]string{
		"version -o template={{.os}}/{{.arch}}":        "/",
		"version -o json":                              `"go_version"`,
		"bundle explain -o json /b":                    `{` + "\n" + `  "plan": "plan of /b\n"`,
		"bundle explain -o template={{.plan}} /b":      "plan of /b\n\n",
		"bundle explain -o table /b":                   "plan of /b\n",
		"config check -o template={{.files}}":          "[]\n",
		"config check -q":                              "",
		"config show -o template={{.policy_hash}}":     "\n",
		"seccomp list -o template={{.name}}":           "default\n",
		"seccomp diff default strict -o json":          `"call"`,
		"seccomp explain strict ptrace -o template=ok": "ok\n",
	} {
		b := newBench("")
		code := b.main(strings.Fields(args))
		if code != 0 || !strings.Contains(b.out.String(), want) || (want == "") != (b.out.String() == "") {
			t.Errorf("%s: exit %d, %q, %q; want %q", args, code, b.out.String(), b.errOut.String(), want)
		}
	}
}

// TestFlagsFirst: flags may follow the arguments of every verb.
func TestFlagsFirst(t *testing.T) {
	commands := (&console{}).app(new(int)).Commands
	for args, want := range map[string]string{
		"seccomp explain default ptrace -o json": "seccomp explain -o json default ptrace",
		"seccomp diff a b --output=json":         "seccomp diff --output=json a b",
		"config check f.toml -q -c x":            "config check -q -c x f.toml",
		"config check -- -q":                     "config check -- -q",
		"config check f -- -q":                   "config check -- f -q",
		"seccomp generate - -o json":             "seccomp generate -o json -",
		"seccomp test p -o json -- ls -l":        "seccomp test p -o json -- ls -l",
		"bench ls -l":                            "bench ls -l",
		"seccomp":                                "seccomp",
		"nosuch -x y":                            "nosuch -x y",
		"config show -o":                         "config show -o",
	} {
		if have := strings.Join(flagsFirst(commands, strings.Fields(args)), " "); have != want {
			t.Errorf("%s: %s; want %s", args, have, want)
		}
	}
}

// TestAuditing: what the caller says of the command stays, and what the verb needs holds.
func TestAuditing(t *testing.T) {
	for _, c := range []struct{ args, command, want string }{
		{"-- true", "true", "--seccomp audit --output json -- true"},
		{"-t 5s -o table sort -o x", "sort -o x", "-t 5s -o table --seccomp audit --output json -- sort -o x"},
		{"--seccomp strict -- --", "--", "--seccomp strict --seccomp audit --output json -- --"},
	} {
		args := strings.Fields(c.args)
		inv, err := parse(args)
		if err != nil || strings.Join(inv.command, " ") != c.command {
			t.Errorf("%s: command %q, %v", c.args, inv.command, err)
		}
		if have := strings.Join(auditing(args, inv.command), " "); have != c.want {
			t.Errorf("%s: %s; want %s", c.args, have, c.want)
		}
	}
}
