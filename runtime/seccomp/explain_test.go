package seccomp

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

func TestExplain(t *testing.T) {
	for _, c := range []struct{ profile, call, verdict string }{
		{"default", "read", "allow"},
		{"default", "mount", "EPERM"},
		{"default", "clone3", "ENOSYS"},
		{"default", "kexec_load", "kill"},
		{"default", "chmod", "allow when argument 1 & 0xc00 is 0x0; EPERM"},
		{"default", "quotactl", "EPERM"},
		{"strict", "socket", "EPERM"},
		{"network", "read", "allow"},
	} {
		got, err := Explain(c.profile, c.call)
		if err != nil || len(got) != 1 || got[0].Verdict() != c.verdict {
			t.Errorf("%s %s: %+v, %v; want %s", c.profile, c.call, got, err, c.verdict)
		}
	}
	got, err := Explain("default", "socket")
	if err != nil || len(got) != 1 || !strings.Contains(got[0].Verdict(), "argument 2 is anything else") {
		t.Errorf("%+v, %v", got, err)
	}
	for _, names := range [][]string{{"default", "ptrac"}, {"defualt", "read"}} {
		if _, err := Explain(names[0], names[1]); !errors.Is(err, &fault.Fault{Code: fault.InvalidValue}) {
			t.Errorf("%v: %v", names, err)
		}
	}
}

// TestExplainAgrees compares the words with the OCI form, which the filters are
// made of: a call that is allowed or refused without conditions there is so here.
func TestExplainAgrees(t *testing.T) {
	for _, name := range Names() {
		profile, err := Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		all, err := Explain(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			e := &all[i]
			var answers []string
			conditions := false
			for _, rule := range profile.Syscalls {
				if slices.Contains(rule.Names, e.Call) {
					answers = append(answers, answer(t, rule.Action, rule.ErrnoRet))
					conditions = conditions || len(rule.Args) > 0
				}
			}
			if conditions {
				for j := range e.Clauses {
					if c := &e.Clauses[j]; !slices.Contains(answers, c.Answer) && c.Answer != e.Otherwise && c.Answer != mustDefault(t, name) {
						t.Errorf("%s %s: %s is no answer of %v", name, e.Call, c.Answer, answers)
					}
				}
				continue
			}
			if answers == nil {
				answers = []string{mustDefault(t, name)}
			}
			if v := e.Verdict(); !slices.Contains(answers, v) || len(slices.Compact(answers)) > 1 {
				t.Errorf("%s %s: %s, want %v", name, e.Call, v, answers)
			}
		}
	}
}

func mustDefault(t *testing.T, name string) string {
	t.Helper()
	d, err := Default(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func answer(t *testing.T, action specs.LinuxSeccompAction, number *uint) string {
	t.Helper()
	switch action {
	case specs.ActAllow:
		return AnswerAllow
	case specs.ActKillProcess:
		return AnswerKill
	}
	for _, symbol := range []string{"EPERM", "ENOTTY", "ENOSYS", "EPROTONOSUPPORT", "EAFNOSUPPORT"} {
		if n, err := errnoNumber(symbol); err == nil && number != nil && n == *number {
			return symbol
		}
	}
	t.Fatalf("action %s, errno %v", action, number)
	return ""
}

func TestDiff(t *testing.T) {
	got, err := Diff("default", "network")
	if err != nil || len(got) != 1 || got[0].Call != "socket" {
		t.Errorf("network differs by %+v, %v", got, err)
	}
	got, err = Diff("default", "strict")
	if err != nil || !slices.ContainsFunc(got, func(d Difference) bool { return d.Call == "fork" && d.A == "allow" && d.B == "EPERM" }) {
		t.Errorf("strict differs by %+v, %v", got, err)
	}
	if got, err := Diff("strict", "strict"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
