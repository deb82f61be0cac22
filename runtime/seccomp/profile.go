package seccomp

import (
	"embed"
	"encoding/json"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

//go:embed profiles/*.json
var sources embed.FS

// Names lists the profiles that Profile knows, the default one first.
func Names() []string { return []string{"default", "strict", "network"} }

// Profile is the named profile in OCI form for the architecture of this
// build. The caller owns the result. An unknown name is E1001; "unconfined" is
// no profile, it is the absence of a filter.
func Profile(name string) (*specs.LinuxSeccomp, error) {
	return ProfileFor(name, runtime.GOARCH)
}

// ProfileFor is Profile for a GOARCH. E2003 when that has no filter here.
func ProfileFor(name, goarch string) (*specs.LinuxSeccomp, error) {
	return profileFor(name, goarch, false)
}

// ReportingFor is ProfileFor with SCMP_ACT_NOTIFY in place of SCMP_ACT_ERRNO
// where a refusal is reported; errnoRet is then what the listener answers. It
// is what capsule compiles, and no other runtime can use it.
func ReportingFor(name, goarch string) (*specs.LinuxSeccomp, error) {
	return profileFor(name, goarch, true)
}

func profileFor(name, goarch string, reporting bool) (*specs.LinuxSeccomp, error) {
	arch, err := ociArch(goarch)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(Names(), name) {
		return nil, unknownProfile(name)
	}
	src, err := readSource(name)
	if err != nil {
		return nil, err
	}
	return src.convert(arch, reporting)
}

// FloorFor is what no filter of a caller may allow, in the form of ReportingFor:
// it is no profile by itself, since it allows all that it does not name.
func FloorFor(goarch string) (*specs.LinuxSeccomp, error) {
	arch, err := ociArch(goarch)
	if err != nil {
		return nil, err
	}
	src, err := readSource("floor")
	if err != nil {
		return nil, err
	}
	return src.convert(arch, true)
}

// ociArch maps a GOARCH to the one architecture that its filter accepts.
func ociArch(goarch string) (specs.Arch, error) {
	switch goarch {
	case "amd64":
		return specs.ArchX86_64, nil
	case "arm64":
		return specs.ArchAARCH64, nil
	}
	return "", fault.New(fault.Seccomp, "select system call filter", "no profile for the architecture "+goarch).
		WithHint("The shipped profiles exist for amd64 and arm64; give an OCI linux.seccomp object instead.")
}

// unknownProfile is the fault for a name that is none of Names.
func unknownProfile(name string) *fault.Fault {
	return fault.New(fault.InvalidValue, "select system call filter", fmt.Sprintf("no profile is called %q", name)).
		WithHint("The profiles are " + strings.Join(Names(), ", ") + ".")
}

// source is the form of a file below profiles/.
type source struct {
	// Summary says whom the profile is for.
	Summary string `json:"summary"`
	// Extends names the profile whose groups come before these. Empty: none.
	Extends string `json:"extends"`
	// DefaultErrno answers calls that no group names. Inherited when empty; empty
	// without Extends: they are allowed.
	DefaultErrno string  `json:"default_errno"`
	Groups       []group `json:"groups"`
}

// group is a set of calls with one answer and the reason for it.
type group struct {
	Reason string `json:"reason"`
	// Action is allow, errno or kill. Empty: errno when Errno is set, else allow.
	Action string `json:"action"`
	// Errno is the symbol of the answer; only with the action errno.
	Errno string `json:"errno"`
	// Quiet refusals are not reported: programs make these calls as a matter of
	// course and go on without. Reason says so.
	Quiet bool     `json:"quiet"`
	Names []string `json:"names"`
	// Args must all match. Empty: the call matches whatever its arguments.
	Args []argument `json:"args"`
}

// argument is a condition on one argument: (argument & mask) is one of values.
type argument struct {
	Index uint `json:"index"`
	// Mask is a hexadecimal number. Empty: 0xffffffff, since the kernel takes
	// the arguments that are compared here as 32-bit integers.
	Mask string `json:"mask"`
	// Values are hexadecimal numbers, alternatives to each other.
	Values []string `json:"values"`
	// Otherwise matches what no other group of the same call matches.
	Otherwise bool `json:"otherwise"`
}

// readSource decodes the file of a profile and those that it extends.
func readSource(name string) (*source, error) {
	data, err := sources.ReadFile("profiles/" + name + ".json")
	if err != nil {
		return nil, fault.Wrap(fault.Seccomp, "read profile "+name, err)
	}
	src := new(source)
	if err := json.Unmarshal(data, src); err != nil {
		return nil, fault.Wrap(fault.Seccomp, "decode profile "+name, err)
	}
	if src.Extends == "" {
		return src, nil
	}
	base, err := readSource(src.Extends)
	if err != nil {
		return nil, err
	}
	src.Groups = append(base.Groups, src.Groups...)
	if src.DefaultErrno == "" {
		src.DefaultErrno = base.DefaultErrno
	}
	return src, nil
}

// convert turns the groups into OCI rules. Groups that answer as the default
// does are left out: libseccomp refuses rules without effect.
func (s *source) convert(arch specs.Arch, reporting bool) (*specs.LinuxSeccomp, error) {
	out := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{arch}}
	if s.DefaultErrno != "" {
		number, err := errnoNumber(s.DefaultErrno)
		if err != nil {
			return nil, err
		}
		out.DefaultAction, out.DefaultErrnoRet = refusal(reporting), &number
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		rule, err := g.rule(reporting)
		if err != nil {
			return nil, err
		}
		if rule.Action == out.DefaultAction && (rule.ErrnoRet == nil || *rule.ErrnoRet == *out.DefaultErrnoRet) {
			continue
		}
		if len(g.Args) == 0 {
			out.Syscalls = append(out.Syscalls, rule)
			continue
		}
		combinations, err := s.combinations(g)
		if err != nil {
			return nil, err
		}
		for _, args := range combinations {
			rule.Args = args
			out.Syscalls = append(out.Syscalls, rule)
		}
	}
	return out, nil
}

// refusal is the action of a refusal that is reported.
func refusal(reporting bool) specs.LinuxSeccompAction {
	if reporting {
		return specs.ActNotify
	}
	return specs.ActErrno
}

// rule is the group without its arguments.
func (g *group) rule(reporting bool) (specs.LinuxSyscall, error) {
	rule := specs.LinuxSyscall{Names: g.Names}
	switch {
	case g.Action == "kill" && g.Errno == "":
		rule.Action = specs.ActKillProcess
	case g.Errno != "" && (g.Action == "" || g.Action == "errno"):
		number, err := errnoNumber(g.Errno)
		if err != nil {
			return rule, err
		}
		rule.Action, rule.ErrnoRet = refusal(reporting && !g.Quiet), &number
	case g.Errno == "" && (g.Action == "" || g.Action == "allow"):
		rule.Action = specs.ActAllow
	default:
		return rule, fault.New(fault.Seccomp, "convert profile", "a group has the action "+g.Action+" with errno "+g.Errno)
	}
	return rule, nil
}

// combinations multiplies the alternatives of the group's arguments out: OCI
// conditions of one rule must all hold, so each combination is its own rule.
func (s *source) combinations(g *group) ([][]specs.LinuxSeccompArg, error) {
	all := [][]specs.LinuxSeccompArg{nil}
	for _, a := range g.Args {
		mask, values, err := s.alternatives(g, a)
		if err != nil {
			return nil, err
		}
		var next [][]specs.LinuxSeccompArg
		for _, head := range all {
			for _, v := range values {
				cond := specs.LinuxSeccompArg{Index: a.Index, Value: mask, ValueTwo: v, Op: specs.OpMaskedEqual}
				next = append(next, append(slices.Clone(head), cond))
			}
		}
		all = next
	}
	return all, nil
}

// alternatives are the mask and the values of one argument. For "otherwise"
// that is one bit, set and clear, taken from the masks of the groups that it
// stands behind: a mask that lies inside theirs is compared after theirs.
func (s *source) alternatives(g *group, a argument) (mask uint64, values []uint64, err error) {
	if !a.Otherwise {
		if mask, err = a.mask(); err != nil {
			return 0, nil, err
		}
		for _, text := range a.Values {
			v, err := hexNumber(text)
			if err != nil {
				return 0, nil, err
			}
			values = append(values, v)
		}
		return mask, values, nil
	}
	mask = 0xffffffff
	for _, other := range s.Groups {
		if !slices.Contains(other.Names, g.Names[0]) {
			continue
		}
		for _, b := range other.Args {
			if b.Index != a.Index || b.Otherwise {
				continue
			}
			m, err := b.mask()
			if err != nil {
				return 0, nil, err
			}
			mask &= m
		}
	}
	if mask == 0 {
		return 0, nil, fault.New(fault.Seccomp, "convert profile", "the masks of "+g.Names[0]+" share no bit")
	}
	bit := uint64(1) << bits.TrailingZeros64(mask)
	return bit, []uint64{0, bit}, nil
}

func (a argument) mask() (uint64, error) {
	if a.Mask == "" {
		return 0xffffffff, nil
	}
	return hexNumber(a.Mask)
}

func hexNumber(text string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 64)
	if err != nil || !strings.HasPrefix(text, "0x") {
		return 0, fault.New(fault.Seccomp, "convert profile", fmt.Sprintf("%q is no hexadecimal number", text))
	}
	return n, nil
}

// errnoNumber is the value of an errno symbol. Linux numbers them alike on
// amd64 and arm64; the list holds those that the profiles use.
func errnoNumber(symbol string) (uint, error) {
	switch symbol {
	case "EPERM":
		return 1, nil
	case "ENOTTY":
		return 25, nil
	case "ENOSYS":
		return 38, nil
	case "EPROTONOSUPPORT":
		return 93, nil
	case "EAFNOSUPPORT":
		return 97, nil
	}
	return 0, fault.New(fault.Seccomp, "convert profile", "unknown errno "+symbol)
}
