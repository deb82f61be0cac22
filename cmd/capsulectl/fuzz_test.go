package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

// FuzzParse checks that arguments never make the parser panic, that the command
// is always the unchanged end of them, and that errors have codes. Arguments are
// separated by line feeds.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"ls\n-l", "-t\n5s\n--\nls", "--\n-weird", "-it\nsh", "-m64M\n-e\nA=b,c\nenv", "--bind=/a:/b:rw\nls",
		"--json\n--pretty", "--rlimit\nnofile=1:2\nx", "-\n", "--=\n", "-=\n", "--no-init=maybe\nls", "-t", "\xff\n--\xff=\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\n")
		inv, err := parse(slices.Clone(args))
		if len(inv.command) > len(args) || !slices.Equal(inv.command, args[len(args)-len(inv.command):]) {
			t.Errorf("%q: the command is %q", args, inv.command)
		}
		if err != nil {
			for _, fl := range err.(fault.List) {
				if fl.Code == "" || len(faultLines(fl)) != 1 {
					t.Errorf("%q: %#v", args, fl)
				}
			}
		}
		for _, s := range inv.settings {
			// Files that the fuzzer may name are not read.
			if s.option.name == "env-file" || s.option.name == "seccomp" {
				return
			}
		}
		_, _ = build(inv, func(string) (string, bool) { return "", false })
	})
}
