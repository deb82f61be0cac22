package main

import (
	"errors"
	"os"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		failed error
		stdout string
		want   string
	}{
		{"all hold", nil, "TAP version 13\nok 1 - a\n  ---\n  {\"error\": \"expected\"}\n  ...\n1..1\n", resultPass},
		{"one does not", nil, "ok 1 - a\nnot ok 2 - b\n", resultFail},
		{"one does not yet", nil, "ok 1 - a\nnot ok 2 - b # TODO\n", resultPass},
		{"exit status", errors.New("exit status 1"), "ok 1 - a\n", resultFail},
		{"nothing asserted, all well", nil, "TAP version 13\n1..0\n", resultPass},
		{"nothing asserted, an error", nil, "TAP version 13\n  ---\n  {\n    \"error\": \"hooks\"\n  }\n  ...\n1..0\n", resultFail},
		{"silence", nil, "\n", resultPass},
		{"bail out", nil, "Bail out! no root\n", resultFail},
	} {
		if got, _ := judge(c.failed, c.stdout, ""); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestDocumentIsFresh: docs/conformance.md is made of the list.
func TestDocumentIsFresh(t *testing.T) {
	list, err := expectations()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 58 {
		t.Errorf("%d programs, want 58", len(list))
	}
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != document(list) {
		t.Error("docs/conformance.md is stale; make generate")
	}
}

// TestHierarchy: a controller is free, taken or unknown to the kernel.
func TestHierarchy(t *testing.T) {
	const cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\nnet_cls\t0\t9\t1\nnet_prio\t12\t1\t1\n"
	for name, want := range map[string]string{"cpu": "1", "net_cls": "0", "net_prio": "12", "net": "", "hugetlb": ""} {
		if got := hierarchy(cgroups, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := free([]string{"net_cls", "net_prio"}, cgroups); len(got) != 1 || got[0] != "net_cls" {
		t.Errorf("free: %v", got)
	}
	if _, ok := unmounted([]string{"net_cls", "hugetlb"}, cgroups); ok {
		t.Error("a kernel without hugetlb has it")
	}
	if wanted("linux_cgroups_relative_hugetlb") == nil || wanted("linux_cgroups_pids") != nil {
		t.Error("the controllers of a program")
	}
}
