package doctest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// example is how a file of docs/examples is run, and what it must print.
type example struct {
	args  []string
	stdin string
	code  int
	// says are pieces of the output, in any order.
	says []string
}

// examples are those of docs/examples that a program or a shell runs; ctl and out
// stand for capsulectl and for a directory.
func examples() map[string]example {
	return map[string]example{
		"client.sh": {args: []string{"sh", "", "ctl"}, says: []string{"it ran: {", `"stdout":"42\n"`}},
		"client.py": {args: []string{"python3", "", "ctl"}, says: []string{
			"success exited 0 b'42\\n'\n", "timeout timeout_wall None b''\n", "E3001", "success exited 0 b'\\x00\\x00\\x00'\n", "error refused None b''\n", "E1005"}},
		"client.js": {args: []string{"node", "", "ctl"}, says: []string{`success exited 0 "42\n"`, "error setup_failed null null\n", "E3003"}},
		"judge.py": {args: []string{"python3", "", "ctl"}, says: []string{
			"right: accepted\n", "wrong: wrong answer\n", "endless: time limit\n", "greedy: memory limit\n", "broken: runtime error\n"}},
		"openai_tool.py":    {args: []string{"python3", "", "ctl"}, says: []string{`"stdout": "5050\\n"`, "ZeroDivisionError", "no object with code"}},
		"langchain_tool.py": {args: []string{"python3", "", "ctl"}, says: []string{"HELLO\n", "first\n[exited, exit code 3]\n", "No such file"}},
		"ci_step.sh":        {args: []string{"sh", "", "ctl", "docs", "out"}, says: []string{"tested\n", "passed; the report is in "}},
		"batch.sh": {args: []string{"sh", "", "ctl"}, stdin: "1\n2\n3\n4\n5\n6\n", says: []string{
			`"stdout":"1\n"`, `"stdout":"4\n"`, `"stdout":"9\n"`, `"stdout":"16\n"`, `"stdout":"25\n"`, `"stdout":"36\n"`}},
		"hello.sh":     {args: []string{"ctl", "run", "--lang", "bash", "", "you"}, says: []string{"hello, you, from capsule\n"}},
		"request.toml": {args: []string{"ctl", "run", "-f", ""}, says: []string{"hello\napple\npear\n"}},
	}
}

// elsewhere are the examples that another package's test runs.
var elsewhere = []string{"capsule_ttrpc.py"} // supervisor/server

func TestExamples(t *testing.T) {
	h := open(t)
	entries, err := os.ReadDir(filepath.Join(root, "docs/examples"))
	if err != nil {
		t.Fatal(err)
	}
	all := examples()
	for _, e := range entries {
		if _, ok := all[e.Name()]; !ok && !slices.Contains(elsewhere, e.Name()) {
			t.Errorf("nothing runs docs/examples/%s", e.Name())
		}
	}
	for name, x := range all {
		t.Run(name, func(t *testing.T) {
			var args []string
			for _, a := range x.args {
				switch a {
				case "":
					a = "docs/examples/" + name
				case "ctl":
					a = filepath.Join(h.bin, "capsulectl")
				case "out":
					a = t.TempDir()
					if err := os.Chmod(filepath.Dir(a), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				args = append(args, a)
			}
			if _, err := exec.LookPath(args[0]); err != nil {
				lack(t, err.Error())
			}
			out, code := h.run(x.stdin, args...)
			if code != x.code {
				t.Errorf("exit %d, want %d:\n%s", code, x.code, out)
			}
			for _, piece := range x.says {
				if !strings.Contains(out, piece) {
					t.Errorf("%q is not in\n%s", piece, out)
				}
			}
		})
	}
}
