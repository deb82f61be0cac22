//go:build cgo && !noseccomp

package libseccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	binding "github.com/seccomp/libseccomp-golang"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
)

// addedRule is one rule as the library took it.
type addedRule struct {
	name, field string
	action      specs.LinuxSeccompAction
	conditions  []specs.LinuxSeccompArg
}

// verify walks the finished program with calls that each rule is about and
// refuses the object when any gets a milder answer than its rule says. The
// library merges rules of one call: an unconditional one swallows conditional
// ones without a word, and overlapping conditions have no promised order.
//
// One overlap is meant: a rule may be an exception from a wider one. So calls
// that a more specific rule matches as well are not held against the wider.
func verify(raw []byte, added []addedRule, goarch string) error {
	program, err := bpf.Parse(raw)
	if err != nil {
		return err
	}
	arch, audit := binding.ArchAMD64, uint32(bpf.ArchAMD64)
	switch goarch {
	case "amd64":
	case "arm64":
		arch, audit = binding.ArchARM64, bpf.ArchARM64
	default: // The walker knows the byte order of these two.
		return refuse("linux.seccomp.architectures", "programs for "+goarch+" cannot be verified")
	}
	numbers := make(map[string]binding.ScmpSyscall)
	siblings := make(map[string][]*addedRule)
	for i := range added {
		siblings[added[i].name] = append(siblings[added[i].name], &added[i])
	}
	for i := range added {
		r := &added[i]
		number, known := numbers[r.name]
		if !known {
			if number, err = binding.GetSyscallFromNameByArch(r.name, arch); err != nil {
				number = -1
			}
			numbers[r.name] = number
		}
		if number < 0 { // The architecture has no such call; the library left it out.
			continue
		}
		if err := r.verify(program, bpf.Data{Number: uint32(number), Arch: audit}, siblings[r.name]); err != nil {
			return err
		}
	}
	return nil
}

// verify walks the program with two calls that the rule is about; call has
// their number and architecture.
func (r *addedRule) verify(program []bpf.Instruction, call bpf.Data, siblings []*addedRule) error {
	for _, high := range []bool{false, true} {
		d := call
		for _, c := range r.conditions {
			value, possible := witness(c, high)
			if !possible {
				return nil // Nothing matches, so nothing can be overridden.
			}
			d.Args[c.Index] = value
		}
		if excepted(r, siblings, &d) {
			continue
		}
		answer, _ := bpf.Run(program, &d)
		if severity(actionOf(answer)) < severity(r.action) {
			return refuse(r.field, fmt.Sprintf("%s: another rule overrides %s with %s", r.name, r.action, bpf.ActionName(answer)))
		}
	}
	return nil
}

// excepted says whether a rule more specific than r matches the call too.
func excepted(r *addedRule, siblings []*addedRule, d *bpf.Data) bool {
	for _, s := range siblings {
		if s != r && s.moreSpecific(r) && s.matches(d) {
			return true
		}
	}
	return false
}

// moreSpecific says whether whatever s matches, r matches, and not the reverse.
func (s *addedRule) moreSpecific(r *addedRule) bool { return s.implies(r) && !r.implies(s) }

// implies says whether each condition of r follows from one of s.
func (s *addedRule) implies(r *addedRule) bool {
	if len(r.conditions) == 0 {
		// An unconditional rule has no exceptions: the library drops them.
		return false
	}
	for _, c := range r.conditions {
		follows := false
		for _, e := range s.conditions {
			mask, value, exact := fixedBits(e)
			follows = follows || exact && e.Index == c.Index && c.Op == specs.OpMaskedEqual &&
				c.Value&^mask == 0 && value&c.Value == c.ValueTwo
		}
		if !follows {
			return false
		}
	}
	return true
}

// fixedBits are the bits of an argument that the condition fixes.
func fixedBits(c specs.LinuxSeccompArg) (mask, value uint64, exact bool) {
	switch c.Op {
	case specs.OpEqualTo:
		return ^uint64(0), c.Value, true
	case specs.OpMaskedEqual:
		return c.Value, c.ValueTwo, true
	}
	return 0, 0, false
}

func (s *addedRule) matches(d *bpf.Data) bool {
	for _, c := range s.conditions {
		if !matches(c, d.Args[c.Index]) {
			return false
		}
	}
	return true
}

func matches(c specs.LinuxSeccompArg, value uint64) bool {
	switch c.Op {
	case specs.OpNotEqual:
		return value != c.Value
	case specs.OpLessThan:
		return value < c.Value
	case specs.OpLessEqual:
		return value <= c.Value
	case specs.OpEqualTo:
		return value == c.Value
	case specs.OpGreaterEqual:
		return value >= c.Value
	case specs.OpGreaterThan:
		return value > c.Value
	default: // SCMP_CMP_MASKED_EQ; operator admits no other.
		return value&c.Value == c.ValueTwo
	}
}

// witness is an argument that satisfies the condition; with high, one with as
// many other bits set as it allows, since the kernel ignores the upper half of
// most arguments.
func witness(c specs.LinuxSeccompArg, high bool) (value uint64, possible bool) {
	switch c.Op {
	case specs.OpNotEqual:
		if high {
			return c.Value ^ 1<<63, true
		}
		return c.Value ^ 1, true
	case specs.OpLessThan:
		return c.Value - 1, c.Value > 0
	case specs.OpGreaterThan:
		if high {
			return ^uint64(0), ^c.Value != 0
		}
		return c.Value + 1, ^c.Value != 0
	case specs.OpGreaterEqual:
		if high {
			return ^uint64(0), true
		}
		return c.Value, true
	case specs.OpMaskedEqual: // Value is the mask, ValueTwo what must remain.
		if high {
			return c.ValueTwo | ^c.Value, c.ValueTwo&^c.Value == 0
		}
		return c.ValueTwo, c.ValueTwo&^c.Value == 0
	default: // Equal, less or equal.
		return c.Value, true
	}
}

// actionOf is the OCI action of a program's answer.
func actionOf(answer uint32) specs.LinuxSeccompAction {
	switch answer &^ bpf.RetDataMask {
	case bpf.RetAllow:
		return specs.ActAllow
	case bpf.RetLog:
		return specs.ActLog
	case bpf.RetTrace:
		switch data := answer & bpf.RetDataMask; {
		case data&bpf.Mark == 0:
			return specs.ActTrace
		case data&bpf.NotifyKill != 0:
			return specs.ActKillProcess
		}
		return specs.ActNotify
	case bpf.RetErrno:
		return specs.ActErrno
	case bpf.RetTrap:
		return specs.ActTrap
	case bpf.RetKillThread:
		return specs.ActKillThread
	}
	return specs.ActKillProcess
}
