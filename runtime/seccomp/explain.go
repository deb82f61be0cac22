package seccomp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/capsule-run/capsule/runtime/seccomp/calls"
	"github.com/capsule-run/capsule/spec/fault"
)

// AnswerAllow and AnswerKill are the answers to a call that are no errno: it is
// made, or the process ends with SIGSYS.
const (
	AnswerAllow = "allow"
	AnswerKill  = "kill"
)

// Clause is what one rule of a profile says about a call.
type Clause struct {
	// Answer is AnswerAllow, AnswerKill or the symbol of an errno.
	Answer string `json:"answer"`
	// When are the conditions on arguments, which must all hold; values are
	// hexadecimal. Empty: the rule holds for every call.
	When []string `json:"when,omitempty"`
	// Quiet refusals are not among the denials of a response.
	Quiet bool `json:"quiet,omitempty"`
	// Reason is why the rule exists, in a sentence or two.
	Reason string `json:"reason"`
}

// Explanation is what a profile says about one system call.
type Explanation struct {
	Call    string   `json:"call"`
	Clauses []Clause `json:"clauses"`
	// Otherwise answers what no clause matches: AnswerAllow or an errno. Empty:
	// a clause without conditions matches everything.
	Otherwise string `json:"otherwise,omitempty"`
}

// Verdict is the explanation on one line, without the reasons. Explanations
// with the same verdict answer every call alike.
func (e *Explanation) Verdict() string {
	var parts []string
	for i := range e.Clauses {
		c := &e.Clauses[i]
		text := c.Answer
		if len(c.When) > 0 {
			text += " when " + strings.Join(c.When, " and ")
		}
		parts = append(parts, text)
	}
	if e.Otherwise != "" {
		text := e.Otherwise
		if len(parts) > 0 {
			text += " otherwise"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// Summary is the sentence about whom a shipped profile is for. An unknown name
// is E1001.
func Summary(name string) (string, error) {
	src, err := shipped(name)
	if err != nil {
		return "", err
	}
	return src.Summary, nil
}

// Explain tells what a shipped profile says about system calls, in the order of
// names; without names about every call that a rule of it names, sorted. An
// unknown profile, and a call that neither this architecture nor the profile
// knows, are E1001.
func Explain(name string, names ...string) ([]Explanation, error) {
	src, err := shipped(name)
	if err != nil {
		return nil, err
	}
	ruled := src.calls()
	if len(names) == 0 {
		names = ruled
	}
	all := make([]Explanation, 0, len(names))
	for _, call := range names {
		if _, found := slices.BinarySearch(ruled, call); !found && !calls.Known(call) {
			return nil, fault.New(fault.InvalidValue, "explain system call filter", fmt.Sprintf("no system call is named %q", call)).
				WithHint("Names are those of the manual, section 2, in small letters; numbers are not taken.")
		}
		all = append(all, src.explain(call))
	}
	return all, nil
}

// Difference is a call that two profiles answer differently, with the verdict
// of each.
type Difference struct {
	Call string `json:"call"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// Diff lists the calls that two shipped profiles answer differently, sorted. A
// call that neither names is in no list: their defaults are told by Default. An
// unknown name is E1001.
func Diff(a, b string) ([]Difference, error) {
	one, err := shipped(a)
	if err != nil {
		return nil, err
	}
	other, err := shipped(b)
	if err != nil {
		return nil, err
	}
	names := append(one.calls(), other.calls()...)
	slices.Sort(names)
	out := []Difference{}
	for _, call := range slices.Compact(names) {
		x, y := one.explain(call), other.explain(call)
		if v, w := x.Verdict(), y.Verdict(); v != w {
			out = append(out, Difference{call, v, w})
		}
	}
	return out, nil
}

// Default is the answer of a shipped profile to calls that no rule names. An
// unknown name is E1001.
func Default(name string) (string, error) {
	src, err := shipped(name)
	if err != nil {
		return "", err
	}
	return src.otherwise(), nil
}

// shipped reads the source of one of Names.
func shipped(name string) (*source, error) {
	if !slices.Contains(Names(), name) {
		return nil, unknownProfile(name)
	}
	return readSource(name)
}

// calls are the names of all calls that a group names, sorted.
func (s *source) calls() []string {
	var names []string
	for i := range s.Groups {
		names = append(names, s.Groups[i].Names...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *source) otherwise() string {
	if s.DefaultErrno == "" {
		return AnswerAllow
	}
	return s.DefaultErrno
}

func (s *source) explain(call string) Explanation {
	e := Explanation{Call: call, Clauses: []Clause{}, Otherwise: s.otherwise()}
	for i := range s.Groups {
		g := &s.Groups[i]
		if !slices.Contains(g.Names, call) {
			continue
		}
		c := Clause{Answer: AnswerAllow, Quiet: g.Quiet, Reason: g.Reason}
		switch {
		case g.Action == "kill":
			c.Answer = AnswerKill
		case g.Errno != "":
			c.Answer = g.Errno
		}
		// Alone, "otherwise" is all that is left of a call.
		rest := len(g.Args) == 0
		for _, a := range g.Args {
			if a.Otherwise && len(g.Args) == 1 {
				rest = true
				continue
			}
			c.When = append(c.When, a.condition())
		}
		if rest {
			e.Otherwise = ""
		}
		e.Clauses = append(e.Clauses, c)
	}
	// What is left of a call is told last.
	slices.SortStableFunc(e.Clauses, func(a, b Clause) int { return min(len(b.When), 1) - min(len(a.When), 1) })
	return e
}

// condition is the argument in words.
func (a argument) condition() string {
	if a.Otherwise {
		return fmt.Sprintf("argument %d is anything else", a.Index)
	}
	values := strings.Join(a.Values, " or ")
	if a.Mask == "" {
		return fmt.Sprintf("argument %d is %s", a.Index, values)
	}
	return fmt.Sprintf("argument %d & %s is %s", a.Index, a.Mask, values)
}
