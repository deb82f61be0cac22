package libseccomp

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// MaxObjectSize bounds the JSON of an object in bytes. The largest profiles in
// use have 30 KiB.
const MaxObjectSize = 1 << 20

// maxRules bounds the product of names and rules, and with it the time and the
// memory that libseccomp spends. The kernel's 4096 instructions hold less.
const maxRules = 8192

// Decode reads an OCI linux.seccomp object. Unknown and duplicate keys, and
// anything after the object, are E2003: a misspelt key is a rule that is not there.
func Decode(object []byte) (*specs.LinuxSeccomp, error) {
	if len(object) > MaxObjectSize {
		return nil, refuse("linux.seccomp", fmt.Sprintf("the object has %d bytes; %d are accepted", len(object), MaxObjectSize))
	}
	if first := bytes.TrimLeft(object, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return nil, refuse("linux.seccomp", "not a JSON object")
	}
	s := new(specs.LinuxSeccomp)
	if err := json.Unmarshal(object, s, json.RejectUnknownMembers(true)); err != nil {
		return nil, refuse("linux.seccomp", err.Error())
	}
	return s, nil
}

// refuse is E2003 about a field of the object.
func refuse(field, message string) *fault.Fault {
	return fault.New(fault.Seccomp, "compile system call filter", message).WithField(field).
		WithHint("Correct the named field of the OCI linux.seccomp object.")
}

// checkObject refuses what can be seen without the library: missing fields,
// features that capsule does not have, and sizes out of bounds. SCMP_ACT_NOTIFY
// is capsule's own, for reporting objects.
func checkObject(s *specs.LinuxSeccomp, reporting bool) error {
	if s == nil || s.DefaultAction == "" {
		return refuse("linux.seccomp.defaultAction", "is missing")
	}
	if s.ListenerPath != "" || s.ListenerMetadata != "" {
		return refuse("linux.seccomp.listenerPath", "notification agents are not supported")
	}
	for i, flag := range s.Flags {
		switch flag {
		case "SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow:
		default:
			return refuse(fmt.Sprintf("linux.seccomp.flags[%d]", i), fmt.Sprintf("the flag %q is not supported", flag))
		}
	}
	if err := checkAction("linux.seccomp", s.DefaultAction, s.DefaultErrnoRet, reporting); err != nil {
		return err
	}
	total := 0
	for i, rule := range s.Syscalls {
		field := fmt.Sprintf("linux.seccomp.syscalls[%d]", i)
		if len(rule.Names) == 0 {
			return refuse(field+".names", "is empty")
		}
		if err := checkAction(field, rule.Action, rule.ErrnoRet, reporting); err != nil {
			return err
		}
		for j, arg := range rule.Args {
			if arg.Index > 5 {
				return refuse(fmt.Sprintf("%s.args[%d].index", field, j), fmt.Sprintf("is %d; calls have arguments 0 to 5", arg.Index))
			}
		}
		if total += len(rule.Names) * max(1, len(rule.Args)); total > maxRules {
			return refuse("linux.seccomp.syscalls", fmt.Sprintf("more than %d rules", maxRules))
		}
	}
	return nil
}

// maxErrno is MAX_ERRNO of the kernel, which cuts larger values down to it.
const maxErrno = 4095

func checkAction(field string, action specs.LinuxSeccompAction, errno *uint, reporting bool) error {
	if reporting && action == specs.ActNotify {
		action = specs.ActErrno // it answers as that does
	}
	switch action {
	case specs.ActErrno, specs.ActTrace:
		if errno != nil && *errno > maxErrno {
			return refuse(field, fmt.Sprintf("the errno %d is out of range; at most %d", *errno, maxErrno))
		}
		return nil
	case specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActAllow, specs.ActLog:
		if errno != nil {
			return refuse(field, fmt.Sprintf("the action %s takes no errno", action))
		}
		return nil
	case specs.ActNotify:
		return refuse(field, "the action SCMP_ACT_NOTIFY is not supported")
	}
	return refuse(field, fmt.Sprintf("unknown action %q", action))
}

// severity orders actions from allow up, for comparing what two rules do.
func severity(action specs.LinuxSeccompAction) int {
	switch action {
	case specs.ActAllow:
		return 0
	case specs.ActLog:
		return 1
	case specs.ActTrace:
		return 2
	case specs.ActErrno, specs.ActNotify:
		return 3
	case specs.ActTrap:
		return 4
	case specs.ActKill, specs.ActKillThread:
		return 5
	default: // SCMP_ACT_KILL_PROCESS; checkAction admits no other.
		return 6
	}
}

// sameAnswer says whether a rule answers as the default does.
func sameAnswer(s *specs.LinuxSeccomp, rule *specs.LinuxSyscall) bool {
	return rule.Action == s.DefaultAction && errnoOf(rule.ErrnoRet) == errnoOf(s.DefaultErrnoRet)
}

// errnoOf is the errno of a rule, EPERM where it gives none.
func errnoOf(errno *uint) uint {
	if errno == nil {
		return 1
	}
	return *errno
}

// split gives the sets of conditions that a rule stands for: one set with all
// of them, or one set for each when two are about the same argument.
func split(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	var seen [6]bool
	for _, a := range args {
		if !seen[a.Index] {
			seen[a.Index] = true
			continue
		}
		sets := make([][]specs.LinuxSeccompArg, len(args))
		for i := range args {
			sets[i] = args[i : i+1]
		}
		return sets
	}
	return [][]specs.LinuxSeccompArg{args}
}
