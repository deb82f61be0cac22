package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestWorkflowsRunTheJobs: every job of hack/ci-local.sh stands in a workflow, and
// the workflows run no other, so that what they do can be done here.
func TestWorkflowsRunTheJobs(t *testing.T) {
	script, err := os.ReadFile("../ci-local.sh")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^job_([a-z]+)\(\)`).FindAllStringSubmatch(string(script), -1) {
		have = append(have, m[1])
	}
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	var run []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`hack/ci-local\.sh ([a-z]+)`).FindAllStringSubmatch(string(text), -1) {
			run = append(run, m[1])
		}
	}
	slices.Sort(have)
	slices.Sort(run)
	if run = slices.Compact(run); len(have) == 0 || !slices.Equal(have, run) {
		t.Errorf("hack/ci-local.sh has the jobs %v, the workflows run %v", have, run)
	}
}

// callers are the files that call targets of the Makefile: workflows, scripts, pages.
func callers(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{".github/workflows/*.yml", "hack/*.sh", ".ci/run", "README.md", "docs/*.md", "Makefile"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[file] = commands(file, string(text))
		}
	}
	return texts
}

// commands are the parts of a file that may be commands: of a page what is set as code,
// of others all but the comments.
func commands(file, text string) string {
	if filepath.Ext(file) == ".md" {
		return strings.Join(regexp.MustCompile("(?s)```[a-z ]*\n.*?```|`[^`\n]+`").FindAllString(text, -1), "\n")
	}
	return regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(text, "")
}

// TestCalledTargetsExist: every target that a workflow, a script or a page calls is in
// the Makefile, which has a line of help for it, and every script that is called is
// there and can be executed.
func TestCalledTargetsExist(t *testing.T) {
	texts := callers(t)
	have := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):.*## \S`).FindAllStringSubmatch(texts["../../Makefile"], -1) {
		have[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^\.PHONY: (.+)$`).FindAllStringSubmatch(texts["../../Makefile"], -1) {
		if !have[m[1]] {
			t.Errorf("the target %s of the Makefile has no line of help", m[1])
		}
	}
	// As a word of a command: at its beginning, in backquotes, or behind what runs it.
	call := regexp.MustCompile("(?m)(?:^\\s*|[`;&|({] ?|\\$ |run: |stage |env [^\n]* )make ((?:--[a-z-]+ )*)([a-z][a-z-]*)\\b")
	script := regexp.MustCompile(`\b(hack/[a-z-]+\.sh|\.ci/run)\b`)
	called := 0
	for file, text := range texts {
		for _, m := range call.FindAllStringSubmatch(text, -1) {
			called++
			if !have[m[2]] {
				t.Errorf("%s calls make %s, which is no target", file, m[2])
			}
		}
		for _, m := range script.FindAllString(text, -1) {
			if info, err := os.Stat(filepath.Join("../..", m)); err != nil || info.Mode()&0o111 == 0 {
				t.Errorf("%s calls %s, which cannot be executed: %v", file, m, err)
			}
		}
	}
	if called < 20 {
		t.Errorf("only %d calls of make were found", called)
	}
}

// TestGroupsOfPackages: hack/deps.sh knows every group that is asked of it.
func TestGroupsOfPackages(t *testing.T) {
	texts := callers(t)
	known := map[string]bool{"arm64-environment": true}
	for _, m := range regexp.MustCompile(`(?m)^    ([a-z0-9]+)\)`).FindAllStringSubmatch(texts["../../hack/deps.sh"], -1) {
		known[m[1]] = true
	}
	asked := 0
	for file, text := range texts {
		for _, m := range regexp.MustCompile(`hack/deps\.sh((?: [a-z0-9-]+)+)`).FindAllStringSubmatch(text, -1) {
			for _, group := range strings.Fields(m[1]) {
				if asked++; !known[group] {
					t.Errorf("%s asks hack/deps.sh for %s, which it does not know", file, group)
				}
			}
		}
	}
	if asked < 10 || len(known) < 6 {
		t.Errorf("only %d groups are known and %d asked for", len(known), asked)
	}
}

// TestWorkflowsAreBound: actions are those of one commit, jobs have a bound of time, and
// no token has more than it needs.
func TestWorkflowsAreBound(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	commits := map[string]string{}
	for file, text := range callers(t) {
		if filepath.Ext(file) != ".yml" {
			continue
		}
		if !strings.Contains(text, "\npermissions:\n  contents: read\n") {
			t.Errorf("%s does not begin with permissions to read alone", file)
		}
		jobs := len(regexp.MustCompile(`(?m)^    runs-on:`).FindAllString(text, -1))
		if bounds := len(regexp.MustCompile(`(?m)^    timeout-minutes: \d+$`).FindAllString(text, -1)); jobs == 0 || bounds != jobs {
			t.Errorf("%s has %d jobs and %d bounds of their time", file, jobs, bounds)
		}
		for _, m := range regexp.MustCompile(`(?m)uses: (.+)$`).FindAllStringSubmatch(text, -1) {
			if !pinned.MatchString(m[1]) {
				t.Errorf("%s uses %s, which names no commit and version", file, m[1])
			}
			action, commit, _ := strings.Cut(m[1], "@")
			if before, ok := commits[action]; ok && before != commit {
				t.Errorf("%s uses %s of %s, another workflow of %s", file, action, commit, before)
			}
			commits[action] = commit
		}
	}
	if len(commits) < 3 {
		t.Errorf("only the actions %v were found", commits)
	}
}
