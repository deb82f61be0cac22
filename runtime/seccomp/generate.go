package seccomp

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Seen is a system call that recorded executions made.
type Seen struct {
	Call  string
	Count int64
	// Arguments are as Lens.See gives them, each once. Empty: no value decides.
	Arguments []string
	// Partial: not all arguments were kept.
	Partial bool
	// Processes made the call; Executions are the ids of those in which.
	Processes, Executions []string
}

// Merge adds what one execution made to what others did, sorted by name.
func Merge(all []Seen, execution string, more []Seen) []Seen {
	for _, m := range more {
		i := slices.IndexFunc(all, func(s Seen) bool { return s.Call == m.Call })
		if i < 0 {
			all, i = append(all, Seen{Call: m.Call}), len(all)
		}
		s := &all[i]
		s.Count += m.Count
		s.Partial = s.Partial || m.Partial
		arguments := m.Arguments
		if len(arguments) == 0 {
			arguments = []string{""}
		}
		s.Arguments = union(s.Arguments, arguments)
		s.Processes = union(s.Processes, m.Processes)
		s.Executions = union(s.Executions, []string{execution})
	}
	slices.SortFunc(all, func(a, b Seen) int { return strings.Compare(a.Call, b.Call) })
	return all
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	slices.Sort(a)
	return a
}

// Rule is a rule of a generated profile and the evidence for it.
type Rule struct {
	Call string `json:"call"`
	// Arguments is what must hold, as Lens.See gives it. Empty: whatever they are.
	Arguments string `json:"arguments,omitempty"`
	// Reason says how often it was seen, by whom and where.
	Reason string `json:"reason"`
}

// Generate makes a profile that allows what was seen and nothing else. Calls that
// the default profile answers with ENOSYS, so that libraries do without them, are
// answered so as well, everything else with EPERM. A call that the machine does
// not know, or conditions that nothing of ours has written, are E1001.
func Generate(seen []Seen, goarch string) (*specs.LinuxSeccomp, []Rule, error) {
	arch, err := ociArch(goarch)
	if err != nil {
		return nil, nil, err
	}
	refuse, absent := uint(1), uint(38) // EPERM, ENOSYS
	out := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &refuse, Architectures: []specs.Arch{arch}}
	whole := specs.LinuxSyscall{Action: specs.ActAllow}
	var rules []Rule
	var parted []specs.LinuxSyscall
	for _, s := range seen {
		if !plainName(s.Call) {
			return nil, nil, fault.New(fault.InvalidValue, "generate system call filter", fmt.Sprintf("no system call is named %q", s.Call)).
				WithHint("The record has a call that no filter can name; take records of this machine's own.")
		}
		for _, text := range s.Arguments {
			rules = append(rules, Rule{s.Call, text, s.reason()})
			if text == "" {
				whole.Names = append(whole.Names, s.Call)
				continue
			}
			conditions, err := parseConditions(text)
			if err != nil {
				return nil, nil, fault.Wrap(fault.InvalidValue, "generate system call filter", err)
			}
			rule := specs.LinuxSyscall{Names: []string{s.Call}, Action: specs.ActAllow}
			for _, c := range conditions {
				rule.Args = append(rule.Args, specs.LinuxSeccompArg{Index: c.index, Value: c.mask, ValueTwo: c.value, Op: specs.OpMaskedEqual})
			}
			parted = append(parted, rule)
		}
	}
	if len(rules) == 0 {
		return nil, nil, fault.New(fault.InvalidValue, "generate system call filter", "the records have no system calls").
			WithHint("Record an execution with --seccomp audit --output json.")
	}
	out.Syscalls = append([]specs.LinuxSyscall{whole}, parted...)
	if without := silent(seen); len(without) > 0 {
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: without, Action: specs.ActErrno, ErrnoRet: &absent})
	}
	return out, rules, nil
}

// plainName tells whether a name can be that of a call.
func plainName(call string) bool {
	return call != "" && strings.Trim(call, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func (s *Seen) reason() string {
	text := "seen " + strconv.FormatInt(s.Count, 10) + " times"
	if s.Count == 0 {
		text = "starts or ends the command"
	}
	if len(s.Processes) > 0 {
		text += " by " + strings.Join(s.Processes, ", ")
	}
	return text + " in " + strings.Join(s.Executions, ", ")
}

// silent are the calls that the default profile refuses with ENOSYS by a quiet
// rule and that were not seen.
func silent(seen []Seen) []string {
	src, err := readSource("default")
	if err != nil {
		return nil // it is compiled in
	}
	var names []string
	for i := range src.Groups {
		g := &src.Groups[i]
		if !g.Quiet || g.Errno != "ENOSYS" || len(g.Args) > 0 {
			continue
		}
		for _, call := range g.Names {
			if !slices.ContainsFunc(seen, func(s Seen) bool { return s.Call == call }) {
				names = append(names, call)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Answers of a judgement besides allowed.
const (
	JudgedAllowed = "allowed"
	JudgedRefused = "refused"
	JudgedUnknown = "depends" // on arguments that were not recorded
)

// maxCombinations bounds how many values of unrecorded arguments are tried.
const maxCombinations = 4096

// Judge tells what a profile, in OCI form, does with a call of which arguments is
// what Lens.See gave. What was not recorded is tried with every value that a rule
// compares it with: when they do not agree, the answer is JudgedUnknown.
func Judge(profile *specs.LinuxSeccomp, call, arguments string) string {
	var mask, value [6]uint64
	if arguments != "" {
		conditions, err := parseConditions(arguments)
		if err != nil {
			return JudgedUnknown
		}
		for _, c := range conditions {
			mask[c.index] |= c.mask
			value[c.index] |= c.value
		}
	}
	var rules []*specs.LinuxSyscall
	for i := range profile.Syscalls {
		if slices.Contains(profile.Syscalls[i].Names, call) {
			rules = append(rules, &profile.Syscalls[i])
		}
	}
	all := [][6]uint64{value}
	for _, rule := range rules {
		for _, a := range rule.Args {
			if all = vary(all, a, mask); all == nil {
				return JudgedUnknown
			}
		}
	}
	verdict := ""
	for i := range all {
		switch v := judged(decide(profile.DefaultAction, rules, &all[i])); {
		case verdict == "":
			verdict = v
		case verdict != v:
			return JudgedUnknown
		}
	}
	return verdict
}

// vary adds to each combination those in which an argument is, and is not, what a
// rule compares it with. Bits in known stay. Nil: there are too many.
func vary(all [][6]uint64, a specs.LinuxSeccompArg, known [6]uint64) [][6]uint64 {
	bits, want := ^uint64(0), a.Value
	if a.Op == specs.OpMaskedEqual {
		bits, want = a.Value, a.ValueTwo
	}
	if bits &^= known[a.Index]; bits == 0 {
		return all
	}
	for _, args := range all {
		for _, v := range []uint64{want, ^want, want + 1, want - 1} {
			args[a.Index] = args[a.Index]&^bits | v&bits
			if !slices.Contains(all, args) {
				all = append(all, args)
			}
		}
		if len(all) > maxCombinations {
			return nil
		}
	}
	return all
}

// decide is the action of the rule that holds and compares most bits, the
// strictest of those, or the default.
func decide(action specs.LinuxSeccompAction, rules []*specs.LinuxSyscall, args *[6]uint64) specs.LinuxSeccompAction {
	weight := -1
	for _, rule := range rules {
		compared, holds := weigh(rule.Args, args)
		if holds && (compared > weight || compared == weight && judged(rule.Action) == JudgedRefused) {
			action, weight = rule.Action, compared
		}
	}
	return action
}

// weigh tells how many bits the conditions of a rule compare and whether they hold.
func weigh(conditions []specs.LinuxSeccompArg, args *[6]uint64) (compared int, holds bool) {
	for _, a := range conditions {
		v := args[a.Index]
		switch a.Op {
		case specs.OpMaskedEqual:
			compared += bits.OnesCount64(a.Value)
			holds = v&a.Value == a.ValueTwo
		case specs.OpEqualTo:
			compared += 64
			holds = v == a.Value
		case specs.OpNotEqual:
			holds = v != a.Value
		case specs.OpLessThan:
			holds = v < a.Value
		case specs.OpLessEqual:
			holds = v <= a.Value
		case specs.OpGreaterEqual:
			holds = v >= a.Value
		case specs.OpGreaterThan:
			holds = v > a.Value
		default:
			holds = false
		}
		if !holds {
			return compared, false
		}
	}
	return compared, true
}

func judged(action specs.LinuxSeccompAction) string {
	switch action {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return JudgedAllowed
	}
	return JudgedRefused
}
