//go:build cgo && !noseccomp

package libseccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	binding "github.com/seccomp/libseccomp-golang"

	"github.com/capsule-run/capsule/spec/fault"
)

// binaryTree is the optimisation level that looks a call up by halving.
// libseccomp ignores priorities of calls with it, so none are set.
const binaryTree = 2

// Version is the version of the library that is linked.
func Version() string {
	major, minor, micro := binding.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// Compile turns s into sock_filter instructions in native byte order for a
// GOARCH, which may be another than the host's. It needs no privilege and
// loads nothing. E2003 names the field that it refuses.
func Compile(s *specs.LinuxSeccomp, goarch string) ([]byte, error) {
	return compile(s, goarch, binaryTree)
}

func compile(s *specs.LinuxSeccomp, goarch string, optimize int) ([]byte, error) {
	if err := checkObject(s); err != nil {
		return nil, err
	}
	filter, err := newFilter(s, goarch, optimize)
	if err != nil {
		return nil, err
	}
	defer filter.Release()
	var added []addedRule
	for i := range s.Syscalls {
		rules, err := addRule(filter, s, i)
		if err != nil {
			return nil, err
		}
		added = append(added, rules...)
	}
	raw, err := export(filter)
	if err != nil {
		return nil, err
	}
	if err := verify(raw, added, goarch); err != nil {
		return nil, err
	}
	return raw, nil
}

// newFilter makes an empty filter with the architectures and attributes. The
// library would set no_new_privs and the threads' filters when it loads a
// program; capsule loads it by itself, so both stay off.
func newFilter(s *specs.LinuxSeccomp, goarch string, optimize int) (*binding.ScmpFilter, error) {
	filter, err := binding.NewFilter(action(s.DefaultAction, s.DefaultErrnoRet))
	if err != nil {
		return nil, wrap("seccomp_init", err)
	}
	err = firstError(
		func() error { return selectArches(filter, s, goarch) },
		func() error { return filter.SetRawRC(true) },
		func() error { return filter.SetNoNewPrivsBit(false) },
		func() error { return filter.SetBadArchAction(binding.ActKillProcess) },
		func() error { return filter.SetOptimize(optimize) },
	)
	if err != nil {
		filter.Release()
		return nil, fault.From(err, fault.Seccomp)
	}
	return filter, nil
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return wrap("seccomp attribute", err)
		}
	}
	return nil
}

// selectArches replaces the host's architecture by the target and adds those
// of the object.
func selectArches(filter *binding.ScmpFilter, s *specs.LinuxSeccomp, goarch string) error {
	target, err := binding.GetArchFromString(goarch)
	if err != nil {
		return refuse("linux.seccomp.architectures", "libseccomp has no architecture "+goarch)
	}
	native, err := binding.GetNativeArch()
	if err != nil {
		return err
	}
	if target != native {
		if err := filter.AddArch(target); err != nil {
			return err
		}
		if err := filter.RemoveArch(native); err != nil {
			return err
		}
	}
	for i, name := range s.Architectures {
		arch, err := ociArch(name)
		if err != nil {
			return refuse(fmt.Sprintf("linux.seccomp.architectures[%d]", i), fmt.Sprintf("unknown architecture %q", name))
		}
		if err := filter.AddArch(arch); err != nil {
			return err
		}
	}
	return nil
}

// ociArch maps SCMP_ARCH_X86_64 to the library's own name.
func ociArch(name specs.Arch) (binding.ScmpArch, error) {
	const prefix = "SCMP_ARCH_"
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return binding.ArchInvalid, fmt.Errorf("no prefix %s", prefix)
	}
	lower := []byte(name[len(prefix):])
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	switch string(lower) {
	case "x86_64":
		return binding.ArchAMD64, nil
	case "aarch64":
		return binding.ArchARM64, nil
	}
	return binding.GetArchFromString(string(lower))
}

// addRule adds the rule at index i and returns what was added for verify.
func addRule(filter *binding.ScmpFilter, s *specs.LinuxSeccomp, i int) ([]addedRule, error) {
	rule := &s.Syscalls[i]
	if sameAnswer(s, rule) {
		return nil, nil
	}
	answer := action(rule.Action, rule.ErrnoRet)
	var added []addedRule
	for j, name := range rule.Names {
		field := fmt.Sprintf("linux.seccomp.syscalls[%d].names[%d]", i, j)
		call, err := binding.GetSyscallFromName(name)
		if err != nil {
			if severity(rule.Action) > severity(s.DefaultAction) {
				return nil, refuse(field, fmt.Sprintf("this libseccomp does not know the call %q, and the default would be milder", name))
			}
			continue
		}
		for _, set := range split(rule.Args) {
			conditions, err := conditionsOf(set)
			if err != nil {
				return nil, refuse(field, name+": "+err.Error())
			}
			if len(conditions) == 0 {
				err = filter.AddRule(call, answer)
			} else {
				err = filter.AddRuleConditional(call, answer, conditions)
			}
			if err != nil {
				return nil, refuse(field, name+": "+err.Error())
			}
			added = append(added, addedRule{name: name, field: field, action: rule.Action, conditions: set})
		}
	}
	return added, nil
}

func conditionsOf(args []specs.LinuxSeccompArg) ([]binding.ScmpCondition, error) {
	conditions := make([]binding.ScmpCondition, 0, len(args))
	for _, a := range args {
		op, err := operator(a.Op)
		if err != nil {
			return nil, err
		}
		condition, err := binding.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return nil, err
		}
		conditions = append(conditions, condition)
	}
	return conditions, nil
}

func operator(op specs.LinuxSeccompOperator) (binding.ScmpCompareOp, error) {
	switch op {
	case specs.OpNotEqual:
		return binding.CompareNotEqual, nil
	case specs.OpLessThan:
		return binding.CompareLess, nil
	case specs.OpLessEqual:
		return binding.CompareLessOrEqual, nil
	case specs.OpEqualTo:
		return binding.CompareEqual, nil
	case specs.OpGreaterEqual:
		return binding.CompareGreaterEqual, nil
	case specs.OpGreaterThan:
		return binding.CompareGreater, nil
	case specs.OpMaskedEqual:
		return binding.CompareMaskedEqual, nil
	}
	return binding.CompareInvalid, fmt.Errorf("unknown operator %q", op)
}

// action is the library's form of an action that checkAction accepted.
func action(a specs.LinuxSeccompAction, errno *uint) binding.ScmpAction {
	switch a {
	case specs.ActErrno:
		return binding.ActErrno.SetReturnCode(int16(errnoOf(errno)))
	case specs.ActTrace:
		return binding.ActTrace.SetReturnCode(int16(errnoOf(errno)))
	case specs.ActTrap:
		return binding.ActTrap
	case specs.ActAllow:
		return binding.ActAllow
	case specs.ActLog:
		return binding.ActLog
	case specs.ActKill, specs.ActKillThread:
		return binding.ActKillThread
	default:
		return binding.ActKillProcess
	}
}

// wrap makes E2003 of an error of the library; a fault stays what it is.
func wrap(op string, err error) *fault.Fault {
	if f, ok := err.(*fault.Fault); ok {
		return f
	}
	return fault.Wrap(fault.Seccomp, op, err)
}
