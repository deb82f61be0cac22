package bundle

import (
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// home is the home directory of the payload's user and the value of HOME.
const home = "/workspace"

// nobody is the overflow id: what unmapped ids look like, see user_namespaces(7).
const nobody = 65534

// minimumEnvironment is what every payload finds in its environment besides
// what the request says. Nothing is taken from the host's.
func minimumEnvironment() [3][2]string {
	return [3][2]string{
		{"HOME", home},
		{"LANG", "C.UTF-8"},
		{"PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"},
	}
}

func (b *builder) process() *specs.Process {
	return &specs.Process{
		User: specs.User{UID: b.uid, GID: b.gid},
		Args: b.req.Command,
		Env:  b.environment(),
		Cwd:  b.req.Isolation.WorkingDirectory,
		// An absent object would leave the choice to the runtime; five empty
		// sets, the bounding set included, leave none.
		Capabilities: &specs.LinuxCapabilities{
			Bounding: []string{}, Effective: []string{}, Inheritable: []string{},
			Permitted: []string{}, Ambient: []string{},
		},
		Rlimits:         b.rlimits(),
		NoNewPrivileges: true,
	}
}

// environment is sorted, so that the bundle depends on the request alone.
func (b *builder) environment() []string {
	env := make([]string, 0, len(b.req.Environment)+3)
	for _, kv := range minimumEnvironment() {
		if _, given := b.req.Environment[kv[0]]; !given {
			env = append(env, kv[0]+"="+kv[1])
		}
	}
	for k, v := range b.req.Environment {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return env
}

func (b *builder) rlimits() []specs.POSIXRlimit {
	limits := make([]specs.POSIXRlimit, 0, len(b.req.Resources.Rlimits))
	for name, l := range b.req.Resources.Rlimits {
		if l.Soft > l.Hard {
			b.refuse(fault.OutOfRange, "/resources/rlimits/"+name, "the soft limit lies above the hard limit")
		}
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Hard: l.Hard, Soft: l.Soft})
	}
	slices.SortFunc(limits, func(x, y specs.POSIXRlimit) int { return strings.Compare(x.Type, y.Type) })
	return limits
}

// user parses isolation.user, "uid[:gid]". A missing gid is the uid: never 0
// by default, for a string that cannot be read must not become root
// (CVE-2026-30892).
func (b *builder) user() (uid, gid uint32) {
	const field = "/isolation/user"
	us, gs, hasGID := strings.Cut(b.req.Isolation.User, ":")
	uid, uok := parseID(us)
	gid, gok := uid, true
	if hasGID {
		gid, gok = parseID(gs)
	}
	if !uok || !gok {
		b.refuse(fault.InvalidValue, field, "must be uid or uid:gid in decimal digits without leading zeros")
		return nobody, nobody
	}
	if !b.host.Rootless && (uid > nobody || gid > nobody) {
		b.refuse(fault.OutOfRange, field, "ids must lie in 0..65534, the range that the sandbox maps")
	}
	return uid, gid
}

// parseID accepts the decimal form of 0..4294967294; 4294967295 is the kernel's
// "no id". Signs, spaces and leading zeros are refused.
func parseID(s string) (uint32, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' || (s[0] == '0' && len(s) > 1) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, false
	}
	return uint32(n), true
}

// checkWorkingDirectory refuses directories that are reached through a
// descriptor: one that leaked from the host would place the payload outside its
// root (runc CVE-2024-21626). What the path names inside is found out by the
// kernel, after pivot_root.
func (b *builder) checkWorkingDirectory() {
	const field = "/isolation/working_directory"
	dir := b.req.Isolation.WorkingDirectory
	if !cleanAbsolute(dir) {
		b.refuse(fault.InvalidPath, field, "must be an absolute, clean path").WithPath(dir)
		return
	}
	for _, bad := range [...]string{"/proc", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"} {
		if within(dir, bad) {
			b.refuse(fault.InvalidPath, field, "must not lie in "+bad).WithPath(dir)
		}
	}
}
