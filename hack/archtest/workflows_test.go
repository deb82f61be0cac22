package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
