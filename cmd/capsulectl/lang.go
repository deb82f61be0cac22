package main

import (
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// language is a preset of --lang.
type language struct {
	name string
	// programs are the names of the interpreter, the best first.
	programs []string
	// flag makes the interpreter take the next argument as the script, and
	// between stands before the script's own arguments.
	flag    string
	between []string
}

func languages() []language {
	return []language{
		{name: "python", programs: []string{"python3", "python"}, flag: "-c"},
		{name: "node", programs: []string{"node", "nodejs"}, flag: "-e", between: []string{"--"}},
		{name: "bash", programs: []string{"bash"}, flag: "-c", between: []string{"bash"}},
	}
}

func languageNames(separator string) string {
	var names []string
	for _, l := range languages() {
		names = append(names, l.name)
	}
	return strings.Join(names, separator)
}

func findLanguage(name string) (language, bool) {
	for _, l := range languages() {
		if l.name == name {
			return l, true
		}
	}
	return language{}, false
}

func modeLang(i *invocation, v string) error {
	if _, ok := findLanguage(v); !ok {
		return fault.New(fault.InvalidValue, "", "no preset for "+strconv.Quote(v)).
			WithHint("There are " + languageNames(", ") + "; any other interpreter is a command: capsulectl run -- perl script.pl")
	}
	i.lang = v
	return nil
}

// maxScript is what one argument of execve can hold: MAX_ARG_STRLEN, which
// counts the NUL at the end.
const maxScript = 128<<10 - 1

// scriptOnStdin says that no file is named.
func scriptOnStdin(command []string) bool { return len(command) == 0 || command[0] == "-" }

// script makes the command of --lang: interpreter, script, arguments. Without
// that flag it does nothing. The script is an argument and no file in the
// sandbox, so that policy sees it and stdin stays the payload's.
func (c *console) script(inv *invocation) error {
	l, ok := findLanguage(inv.lang)
	if !ok {
		return nil
	}
	var text []byte
	var err error
	if scriptOnStdin(inv.command) {
		c.terminalNote("a script")
		text, err = readBounded(c.stdin, maxScript)
	} else {
		text, err = readUpTo(inv.command[0], maxScript)
	}
	if err != nil {
		f := *fault.From(err, fault.IO)
		if f.Code == fault.OutOfRange {
			f.Op = "read the script"
			f.Hint = "A script may have " + strconv.Itoa(maxScript) + " bytes; run a longer one as a file: capsulectl run --readonly FILE -- INTERPRETER FILE"
		}
		return &f
	}
	req, _ := assemble(inv, c.lookupEnv) // build tells what is wrong with the flags
	program, err := l.interpreter(req)
	if err != nil {
		return err
	}
	var args []string
	if len(inv.command) > 0 {
		args = inv.command[1:]
	}
	command := append([]string{program, l.flag, string(text)}, l.between...)
	inv.command = append(command, args...)
	return nil
}

// defaultPath is where a sandbox looks for programs without a PATH of the request's.
const defaultPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

// interpreter is the first of the language's programs that the sandbox's root
// has. Where the request brings files along only the sandbox can tell, which
// looks for the usual name.
func (l *language) interpreter(req *spec.Request) (string, error) {
	root, search := "/", defaultPath
	if req.Isolation.Rootfs != nil {
		root = *req.Isolation.Rootfs
	}
	if path, ok := req.Environment["PATH"]; ok {
		search = path
	}
	for _, program := range l.programs {
		for _, dir := range strings.Split(search, ":") {
			if isProgram(root, dir+"/"+program) {
				return program, nil
			}
		}
	}
	if i := &req.Isolation; len(i.ReadonlyPaths)+len(i.WritablePaths)+len(i.BindMounts) > 0 {
		return l.programs[0], nil
	}
	return "", fault.New(fault.CommandNotFound, "flag --lang", strings.Join(l.programs, " or ")+" is not in the sandbox's root "+root+", in "+search).
		WithHint("Install it there, or give --rootfs a directory that has it.")
}
