package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// written makes a file and returns its path.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRequestOfAFile(t *testing.T) {
	const document = `{"command":["ls","-l"],"timeout_ms":1234,"environment":{"A":"b"},"resources":{"cpu_quota":0.5}}`
	toml := written(t, "r.TOML", "command = ['ls', \"-l\"]\ntimeout_ms = 1_234\n[environment]\nA = 'b'\n[resources]\ncpu_quota = 0.5\n")
	for name, args := range map[string][]string{
		"json": {"-f", written(t, "r.json", "\xef\xbb\xbf"+document)}, "another name": {"--file=" + written(t, "request", document)},
		"toml": {"-f", toml}, "stdin": {"-f", "-"}, "with stdin": {"-if", toml},
	} {
		b := newBench(document)
		if code := b.main(append([]string{"run"}, args...)); code != 0 || b.errOut.String() != "" || b.out.String() != "" {
			t.Errorf("%s: exit %d: %s%s", name, code, b.out.String(), b.errOut.String())
			continue
		}
		r := b.engine.request
		if strings.Join(r.Command, " ") != "ls -l" || r.TimeoutMS != 1234 || r.Environment["A"] != "b" || *r.Resources.CPUQuota != 0.5 {
			t.Errorf("%s: request %s", name, r.Encode())
		}
	}
}

func TestRequestOfAFileRefused(t *testing.T) {
	good := written(t, "r.json", `{"command":["ls"]}`)
	for _, c := range []struct {
		args []string
		code fault.Code
		says string
	}{
		{[]string{"-f", "/nosuch/request.json"}, fault.InvalidPath, "/nosuch"},
		{[]string{"-f", ""}, fault.InvalidPath, "empty"},
		{[]string{"-f", written(t, "r.json", "command = 1")}, fault.JSONSyntax, ""},
		{[]string{"-f", written(t, "r.toml", "a = 1\ncommand = [")}, fault.JSONSyntax, "line 2"},
		{[]string{"-f", written(t, "r.toml", "command = ['ls']\ncomand = 1")}, fault.UnknownField, "comand"},
		{[]string{"-f", written(t, "r.toml", "command = ['ls']\nresources.cpu_quota = inf")}, fault.InvalidValue, ""},
		{[]string{"-f", good, "-t", "5s"}, fault.InvalidValue, "--timeout cannot be combined with --file"},
		{[]string{"-f", good, "ls"}, fault.InvalidValue, "command cannot be combined"},
		{[]string{"-f", good, "--lang", "bash"}, fault.InvalidValue, "--lang cannot be combined"},
		{[]string{"-i", "-f", "-"}, fault.InvalidValue, "--stdin cannot be combined"},
		{[]string{"-i", "-f", written(t, "r.json", `{"command":["ls"],"stdin":"x"}`)}, fault.InvalidValue, "request that has stdin"},
	} {
		b := newBench("")
		code := b.main(append([]string{"run", "-o", "json"}, c.args...))
		r := document(t, b.out.String())
		if code != spec.ExitRefused || r.Error == nil || r.Error.Code != string(c.code) || !strings.Contains(b.out.String(), c.says) {
			t.Errorf("%q: exit %d: %s", c.args, code, b.out.String())
		}
		if b.engine.request != nil {
			t.Errorf("%q: something was started", c.args)
		}
	}
}

// rootWith makes a root directory in which each name is an executable, or a
// link where it stands as NAME=TARGET.
func rootWith(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(root+"/usr/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		name, target, linked := strings.Cut(n, "=")
		err := os.WriteFile(root+"/usr/bin/"+name, nil, 0o755)
		if linked {
			if err = os.Remove(root + "/usr/bin/" + name); err == nil {
				err = os.Symlink(target, root+"/usr/bin/"+name)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLanguages(t *testing.T) {
	file := written(t, "s", "of a file")
	for _, c := range []struct {
		root, args, stdin, want string
	}{
		{rootWith(t, "python3", "python"), "--lang python", "print(1)\n", "python3|-c|print(1)\n"},
		{rootWith(t, "python"), "--lang=python - a -b", "x", "python|-c|x|a|-b"},
		{rootWith(t, "nodejs"), "--lang node -- " + file + " --x", "", "nodejs|-e|of a file|--|--x"},
		{rootWith(t, "bash=/usr/bin/real", "real"), "-i --lang bash " + file + " 1", "kept", "bash|-c|of a file|bash|1"},
		{rootWith(t), "--bind /tmp:/opt --lang bash", "", "bash|-c||bash"},
	} {
		b := newBench(c.stdin)
		if code := b.main(append([]string{"run", "--rootfs", c.root}, strings.Fields(c.args)...)); code != 0 {
			t.Errorf("%s: exit %d: %s", c.args, code, b.errOut.String())
		} else if have := strings.Join(b.engine.request.Command, "|"); have != c.want {
			t.Errorf("%s: command %q, want %q", c.args, have, c.want)
		}
	}
}

func TestLanguagesRefused(t *testing.T) {
	outside := rootWith(t, "node=../../../../../../../../bin/sh") // leads out, but for a process in that root nowhere
	for _, c := range []struct {
		args, stdin string
		exit        int
		code        fault.Code
		says        string
	}{
		{"--rootfs " + rootWith(t) + " --lang python", "", spec.ExitNotFound, fault.CommandNotFound, "python3 or python is not in the sandbox's root"},
		{"--rootfs " + outside + " --lang node", "", spec.ExitNotFound, fault.CommandNotFound, "node"},
		{"-e PATH=/nosuch --lang bash", "", spec.ExitNotFound, fault.CommandNotFound, "/nosuch"},
		{"--lang perl", "", spec.ExitRefused, fault.InvalidValue, "python, node, bash"},
		{"--lang bash /nosuch/script", "", spec.ExitRefused, fault.InvalidPath, "/nosuch/script"},
		{"--lang bash -i", "", spec.ExitRefused, fault.InvalidValue, "script on stdin"},
		{"--lang bash", strings.Repeat("#", maxScript+1), spec.ExitRefused, fault.OutOfRange, "131071"},
		{"--lang bash", "a\x00b", spec.ExitRefused, fault.InvalidValue, "NUL"},
	} {
		b := newBench(c.stdin)
		code := b.main(append([]string{"run", "-o", "json"}, strings.Fields(c.args)...))
		r := document(t, b.out.String())
		if code != c.exit || r.Error == nil || r.Error.Code != string(c.code) || !strings.Contains(b.out.String(), c.says) {
			t.Errorf("%s: exit %d: %s", c.args, code, b.out.String())
		}
		if b.engine.request != nil {
			t.Errorf("%s: something was started", c.args)
		}
	}
}
