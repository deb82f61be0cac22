package doctest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// helpExamples are the examples of every help text, which docs/cli.md and the manual show
// too, by the verb.
func helpExamples(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "cmd/capsulectl/testdata/*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, file := range files {
		verb := strings.TrimSuffix(filepath.Base(file), ".txt")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, examples, found := strings.Cut(string(text), "\nExamples:\n")
		if !found {
			continue
		}
		examples, _, _ = strings.Cut(examples, "\n\n")
		for line := range strings.Lines(examples) {
			all[verb] = append(all[verb], strings.TrimSpace(line))
		}
	}
	return all
}

// prelude is typed before each example: what the reader is supposed to have. ended and
// live are executions; bench measures no longer than it must; who follows a stream stops
// after a while.
const prelude = `
sudo() { "$@"; }
capsulectl() {
	case $1 in
	bench) shift; command capsulectl bench -n 2 --clients 1 --seconds 0.1 "$@" ;;
	events) timeout -s INT 1 capsulectl "$@" || [ $? = 124 ] ;;
	stats) timeout -s INT 2 capsulectl "$@" || [ $? = 124 ] ;;
	*) command capsulectl "$@" ;;
	esac
}
command -v jq >/dev/null || jq() { cat; }
fpath=("" "$PWD")
mkdir -p ~/.config/fish/completions data
rm -rf b before after
printf '2\n1\n' >numbers.txt
printf '#!/bin/sh\necho "$MODE"\n' >job; cp job data/job.sh; chmod +x job data/job.sh
printf 'test:\n\t@echo tested\n' >Makefile
echo '{"command":["true"]}' >request.json
printf 'command = ["true"]\n' >request.toml
`

// needs are what an example has besides the prelude, by what it contains.
var needs = []struct{ contains, first string }{
	{"bundle diff", "capsulectl bundle create request.json before; capsulectl bundle create request.json after\n"},
	{"bundle run", "capsulectl bundle create request.json b\n"},
	{"bundle compare", "capsulectl bundle create request.json b\n"},
	{"bundle validate", "capsulectl bundle create request.json b\n"},
	{"check capsule.toml", "capsulectl config default >capsule.toml\n"},
	{"generate record.json", "capsulectl run --seccomp audit -o json -- sort --version >record.json\n"},
	{"test sort.json", "capsulectl run --seccomp audit -o json -- sort --version >record.json; capsulectl seccomp generate record.json >sort.json\n"},
	{"attach $id", "id=$(capsulectl run -d -i -- sort -n)\n"},
	{"$(capsulectl ps -q)", "capsulectl run -d -- sleep 60 >/dev/null\n"},
	{"wait $id", "id=$(capsulectl run -d -- true)\n"},
	{"$(capsulectl ps -aq)", "capsulectl run -d -- true >/dev/null\n"},
}

// failing are examples whose command need not end with 0, for the reader's own programs
// are not there, or what is told of differs, as the host ids of two bundles do; events need
// a daemon, and kube a cluster.
var failing = []string{"capsulectl kube run", "bundle diff", "capsulectl events", "-- ./job)", "-- pytest", "-- ./data/job.sh", "-- make test", "exit 7", "capsulectl doctor"}

// TestHelpExamples types every example of the help texts. None may be refused for how
// it is written.
func TestHelpExamples(t *testing.T) {
	h := open(t)
	runtimes := others(t)
	typed := 0
	examples := helpExamples(t)
	for _, verb := range slices.Sorted(maps.Keys(examples)) {
		for _, line := range examples[verb] {
			if !runtimes && (strings.Contains(line, "runc") || strings.Contains(line, "crun")) {
				continue
			}
			typed++
			h.typeExample(t, verb, line)
		}
	}
	if typed < 60 {
		t.Errorf("only %d examples were typed", typed)
	}
}

func (h *house) typeExample(t *testing.T, verb, line string) {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) { // payloads and runtimes pass through
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := prelude
	for _, n := range needs {
		if strings.Contains(line, n.contains) && !strings.HasPrefix(line, "id=") {
			script += n.first
		}
	}
	command := strings.NewReplacer("-n 500", "-n 2", "/etc/apparmor.d/", "./", "      all that is kept", "").Replace(line)
	if strings.Contains(command, "3f2a") {
		life := "true"
		if slices.Contains([]string{"stop", "kill"}, verb) {
			life = "sleep 60"
		}
		script += "id=$(capsulectl run -d -- " + life + ")\n"
		if life == "true" {
			script += "capsulectl wait $id >/dev/null\n"
		}
		command = strings.ReplaceAll(command, "3f2a", "${id:0:13}")
	}
	out, code := h.runIn(dir, script+command+"\n", "bash", "-eu", "-o", "pipefail", "-s")
	fails := slices.ContainsFunc(failing, func(part string) bool { return strings.Contains(line, part) })
	if code != 0 && !fails {
		t.Errorf("%s: exit %d of %s\n%s", verb, code, line, out)
	}
	for _, bad := range []string{"unknown", "E1001", "E1002", "E1005", "internal error", "syntax error"} {
		if strings.Contains(out, bad) {
			t.Errorf("%s: %s says\n%s", verb, line, out)
		}
	}
}
