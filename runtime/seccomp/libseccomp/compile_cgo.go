//go:build cgo && !noseccomp

package libseccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	binding "github.com/seccomp/libseccomp-golang"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/spec/fault"
)

// binaryTree is the optimisation level that looks a call up by halving.
// libseccomp ignores priorities of calls with it, so none are set.
const binaryTree = 2

// Available: this build has the library.
const Available = true

// Version is the version of the library that is linked.
func Version() string {
	major, minor, micro := binding.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// Compile turns s into sock_filter instructions in native byte order for a
// GOARCH, which may be another than the host's. It needs no privilege and
// loads nothing. E2003 names the field that it refuses.
func Compile(s *specs.LinuxSeccomp, goarch string) ([]byte, error) {
	return compile(s, goarch, options{optimize: binaryTree})
}

// options are what differs between programs of one object.
type options struct {
	optimize int
	// reporting: SCMP_ACT_NOTIFY is known, and kills are reported as well.
	reporting bool
}

// CompileReporting is Compile for an object of seccomp.ReportingFor. The program
// answers SECCOMP_RET_USER_NOTIF with a data word that tells the listener what to
// answer: see bpf.NotifyKill. It is loaded with a listener, or as bpf.Plain
// makes it.
func CompileReporting(s *specs.LinuxSeccomp, goarch string) ([]byte, error) {
	raw, err := compile(s, goarch, options{optimize: binaryTree, reporting: true})
	if err != nil {
		return nil, err
	}
	return bpf.Unmark(raw), nil
}

// CompileCaller compiles an object of a caller's own. What it refuses with an
// errno other than ENOSYS is reported, and so is what it kills. What it allows
// is asked of the floor (seccomp.FloorFor), which no caller may go below.
func CompileCaller(s *specs.LinuxSeccomp, goarch string) ([]byte, error) {
	if err := checkObject(s, false); err != nil {
		return nil, err
	}
	raw, err := CompileReporting(reporting(s), goarch)
	if err != nil {
		return nil, err
	}
	floor, err := seccomp.FloorFor(goarch)
	if err != nil {
		return nil, err
	}
	floor.Architectures = append(floor.Architectures, s.Architectures...)
	second, err := CompileReporting(floor, goarch)
	if err != nil {
		return nil, err
	}
	chained, err := bpf.Chain(raw, second)
	if err != nil {
		return nil, refuse("linux.seccomp.syscalls", err.Error())
	}
	return chained, nil
}

// reporting is a copy of s with SCMP_ACT_NOTIFY for refusals that are reported.
func reporting(s *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	const enosys = 38
	change := func(action specs.LinuxSeccompAction, errno *uint) specs.LinuxSeccompAction {
		if action == specs.ActErrno && errnoOf(errno) != enosys && errnoOf(errno) != 0 {
			return specs.ActNotify
		}
		return action
	}
	out := *s
	out.DefaultAction = change(s.DefaultAction, s.DefaultErrnoRet)
	out.Syscalls = slices.Clone(s.Syscalls)
	for i := range out.Syscalls {
		out.Syscalls[i].Action = change(out.Syscalls[i].Action, out.Syscalls[i].ErrnoRet)
	}
	return &out
}

func compile(s *specs.LinuxSeccomp, goarch string, o options) ([]byte, error) {
	if err := checkObject(s, o.reporting); err != nil {
		return nil, err
	}
	filter, err := newFilter(s, goarch, o)
	if err != nil {
		return nil, err
	}
	defer filter.Release()
	var added []addedRule
	for i := range s.Syscalls {
		rules, err := addRule(filter, s, i, o)
		if err != nil {
			return nil, err
		}
		added = append(added, rules...)
	}
	raw, err := export(filter)
	if err == nil && o.optimize == binaryTree {
		raw, err = bpf.Compact(raw)
	}
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
func newFilter(s *specs.LinuxSeccomp, goarch string, o options) (*binding.ScmpFilter, error) {
	filter, err := binding.NewFilter(o.action(s.DefaultAction, s.DefaultErrnoRet))
	if err != nil {
		return nil, wrap("seccomp_init", err)
	}
	err = firstError(
		func() error { return selectArches(filter, s, goarch) },
		func() error { return filter.SetRawRC(true) },
		func() error { return filter.SetNoNewPrivsBit(false) },
		func() error { return filter.SetBadArchAction(o.action(specs.ActKillProcess, nil)) },
		func() error { return filter.SetOptimize(o.optimize) },
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
func addRule(filter *binding.ScmpFilter, s *specs.LinuxSeccomp, i int, o options) ([]addedRule, error) {
	rule := &s.Syscalls[i]
	if sameAnswer(s, rule) {
		return nil, nil
	}
	answer := o.action(rule.Action, rule.ErrnoRet)
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
// The library gives notifications no data, so those are traces with a mark here,
// which bpf.Unmark turns into what is meant.
func (o options) action(a specs.LinuxSeccompAction, errno *uint) binding.ScmpAction {
	mark := func(data uint) binding.ScmpAction {
		word := uint16(bpf.Mark | data)
		return binding.ActTrace.SetReturnCode(int16(word))
	}
	switch a {
	case specs.ActNotify:
		return mark(errnoOf(errno))
	case specs.ActKillProcess:
		if o.reporting {
			return mark(bpf.NotifyKill)
		}
		return binding.ActKillProcess
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
