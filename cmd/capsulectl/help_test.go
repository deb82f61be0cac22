package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with testdata/name.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text {
		t.Errorf("%s differs; run go test -update and look at the difference:\n%s", path, text)
	}
}

func TestTexts(t *testing.T) {
	for name, args := range map[string]string{
		"help.txt":       "",
		"run.txt":        "run --help",
		"version.txt":    "version --help",
		"schema.txt":     "schema --help",
		"bundle.txt":     "bundle --help",
		"doctor.txt":     "doctor --help",
		"bench.txt":      "bench --help",
		"seccomp.txt":    "seccomp --help",
		"kube.txt":       "kube run --help",
		"completion.txt": "completion --help",
		"config.txt":     "config --help",
		"ps.txt":         "ps --help", "inspect.txt": "inspect --help", "logs.txt": "logs --help", "attach.txt": "attach --help", "wait.txt": "help wait",
		"stop.txt": "stop --help", "kill.txt": "kill --help", "rm.txt": "rm --help", "stats.txt": "stats -h", "events.txt": "events --help",
		"prune.txt": "prune --help", "info.txt": "help info",
		"completion.bash.txt": "completion bash",
		"completion.zsh.txt":  "completion zsh",
		"completion.fish.txt": "completion fish",
	} {
		b := newBench("")
		if code := b.main(strings.Fields(args)); code != 0 || b.errOut.String() != "" {
			t.Errorf("%s: exit %d: %s", args, code, b.errOut.String())
		}
		golden(t, name, b.out.String())
	}
}

// TestWaysToHelp checks that every way to ask for a text gives the same text.
func TestWaysToHelp(t *testing.T) {
	for _, ways := range [][]string{
		{"", "help", "--help", "-h", "help help"},
		{"run --help", "run -h", "help run", "run -v --help", "run --json --help"},
		{"schema --help", "help schema", "schema -h"},
		{"ps --help", "help ps", "ps -h", "ps -a --help"},
		{"bundle", "bundle --help", "help bundle", "bundle explain --help"},
		{"kube", "kube --help", "help kube", "kube run -h"},
		{"version", "--version"},
	} {
		var first string
		for i, way := range ways {
			b := newBench("")
			if code := b.main(strings.Fields(way)); code != 0 {
				t.Errorf("%q: exit %d: %s", way, code, b.errOut.String())
			}
			if i == 0 {
				first = b.out.String()
			}
			if b.out.String() != first || first == "" {
				t.Errorf("%q differs from %q:\n%s", way, ways[0], b.out.String())
			}
		}
	}
}

func TestOtherVerbs(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		out  string
		err  string
	}{
		{"schema request", 0, `"$schema"`, ""},
		{"schema response", 0, `"$schema"`, ""},
		{"schema", 125, "", "request or response"},
		{"schema nosuch", 125, "", "E1001"},
		{"version -o json", 0, `"go_version"`, ""},
		{"version -o yaml", 125, "", "neither human nor table"},
		{"version x", 125, "", "takes no arguments"},
		{"version --otput json", 125, "", "Did you mean --output?"},
		{"bundle explain /b", 0, "plan of /b", ""},
		{"bundle explain", 125, "", "give the directory"},
		{"bundle explian", 125, "", "Did you mean explain?"},
		{"completion tcsh", 125, "", "no script"},
		{"rnu", 125, "", "Did you mean run?"},
		{"exec x ls", 125, "", "capsulectl run -- CMD"},
		{"start x", 125, "", "capsulectl run -d"},
		{"pull x", 125, "", "no images"},
		{"bundle nosuch", 125, "", "There are capsulectl bundle create, export,"},
		{"bundle run", 125, "", "give the directory of the bundle"},
		{"config exec", 125, "", "There are capsulectl config default"},
		{"bench -n x", 125, "", `flag -n: "x" is not a number. See capsulectl bench --help.`},
		{"-v", 125, "", "unknown flag -v"},
		{"cp x:/a b", 125, "", "--writable PATH"},
		{"./a.out", 125, "", "capsulectl run -- CMD"},
		{"--memory 5 run ls", 125, "", "capsulectl run --memory"},
		{"help rnu", 125, "", "Did you mean run?"},
	} {
		b := newBench("")
		code := b.main(strings.Fields(c.args))
		if code != c.code || !strings.Contains(b.out.String(), c.out) || (c.out == "") != (b.out.String() == "") ||
			!strings.Contains(b.errOut.String(), c.err) || (c.err == "") != (b.errOut.String() == "") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", c.args, code, b.out.String(), b.errOut.String())
		}
	}
}

// TestRunThroughTheApp checks that the App's run verb is the one that main calls.
func TestRunThroughTheApp(t *testing.T) {
	b := newBench("")
	if code := b.verbs([]string{"run", "-t", "5s", "--", "ls", "-l", "--help"}); code != 0 {
		t.Fatalf("exit %d: %s", code, b.errOut.String())
	}
	if r := b.engine.request; r.TimeoutMS != 5000 || strings.Join(r.Command, " ") != "ls -l --help" {
		t.Errorf("request %s", r.Encode())
	}
}

// TestCompletionScriptsParse asks each shell that is installed to read its script.
func TestCompletionScriptsParse(t *testing.T) {
	for shell, args := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		script, err := completion(shell)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, args...)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
}

func TestOptionsTable(t *testing.T) {
	seen := map[string]bool{}
	for i := range options {
		o := &options[i]
		if (o.mode == nil) == (o.apply == nil) {
			t.Errorf("--%s has not exactly one action", o.name)
		}
		if o.apply != nil && o.pointer == "" {
			t.Errorf("--%s names no field of the request", o.name)
		}
		for _, n := range o.Names() {
			if seen[n] {
				t.Errorf("%s stands twice", n)
			}
			seen[n] = true
		}
	}
}
