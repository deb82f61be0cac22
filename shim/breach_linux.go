//go:build breach

package shim

import (
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/runtime/plan"
)

// breachConfig takes walls out that the configuration orders.
func breachConfig(s *specs.Spec) {
	l := s.Linux
	switch {
	case breach.Of("masked_paths"):
		l.MaskedPaths = nil
	case breach.Of("readonly_paths"):
		l.ReadonlyPaths = nil
	case breach.Of("readonly_root"):
		s.Root.Readonly = false
	case breach.Of("readonly_binds"):
		withoutOption(s, "ro", "rro")
	case breach.Of("nosuid"):
		withoutOption(s, "nosuid", "rnosuid")
	case breach.Of("nodev"):
		withoutOption(s, "nodev", "rnodev")
	case breach.Of("noexec"):
		withoutOption(s, "noexec", "rnoexec")
	case breach.Of("tmpfs_sizes"):
		withoutOption(s, "size=", "nr_inodes=")
	case breach.Of("idmapped_binds"):
		for i := range s.Mounts {
			s.Mounts[i].UIDMappings, s.Mounts[i].GIDMappings = nil, nil
		}
		withoutOption(s, "idmap", "ridmap")
	case breach.Of("hidden_init"), breach.Of("init_ids"), breach.Of("init_dumpable"):
		// The others stand behind the first, where nobody would see them.
		withoutOption(s, "hidepid=")
	case breach.Of("environment"):
		s.Process.Env = append(s.Process.Env, os.Environ()...)
	case breach.Of("memory_limit"):
		l.Resources.Memory = nil
	case breach.Of("pids_limit"):
		l.Resources.Pids = nil
	case breach.Of("pid_namespace"):
		// A proc of its own belongs to a pid namespace: the host's is shown.
		for i := range s.Mounts {
			if s.Mounts[i].Type == "proc" {
				s.Mounts[i] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
			}
		}
		l.MaskedPaths, l.ReadonlyPaths = nil, nil
	case breach.Of("ipc_namespace"):
		// A message queue file system belongs to an ipc namespace.
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "mqueue" })
	}
}

// withoutOption removes mount options that are, or begin with, one of names.
func withoutOption(s *specs.Spec, names ...string) {
	for i := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(slices.Clone(s.Mounts[i].Options), func(o string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return o == n || strings.HasSuffix(n, "=") && strings.HasPrefix(o, n) })
		})
	}
}

// breachPlan takes walls out that are steps.
func breachPlan(p *plan.Plan) {
	prctl := func(s *plan.Step, option int64) bool { return s.Op == plan.OpPrctl && s.Args[0].N == option }
	switch {
	case breach.Of("seccomp"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpSeccomp })
	case breach.Of("capabilities"):
		drop(p, func(s *plan.Step) bool { return s.Field == "process.capabilities" })
	case breach.Of("no_new_privs+seccomp"):
		// The kernel takes no filter and no ruleset without it.
		drop(p, func(s *plan.Step) bool {
			return prctl(s, unix.PR_SET_NO_NEW_PRIVS) || s.Op == plan.OpSeccomp || s.Op == plan.OpLandlockRestrictSelf
		})
	case breach.Of("session"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpSetsid })
	case breach.Of("descriptors"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpCloseRange })
	case breach.Of("rlimits"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpPrlimit })
	case breach.Of("keyring"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpKeyctl })
	case breach.Of("landlock"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpLandlockRestrictSelf })
	case breach.Of("setgroups"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpSetgroups })
	case breach.Of("init_dumpable"):
		drop(p, func(s *plan.Step) bool { return prctl(s, unix.PR_SET_DUMPABLE) })
		p.Init = append(p.Init, plan.Step{Op: plan.OpPrctl, Args: []plan.Arg{{N: unix.PR_SET_DUMPABLE}, {N: 1}, {}, {}, {}}})
	case breach.Of("init_ids"):
		drop(p, func(s *plan.Step) bool {
			return s.Path == "init" && (s.Op == plan.OpSetresuid || s.Op == plan.OpSetresgid)
		})
	case breach.Of("parent_death"):
		drop(p, func(s *plan.Step) bool { return prctl(s, unix.PR_SET_PDEATHSIG) })
	case breach.Of("detached_root"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpUmount2 })
	case breach.Of("readonly_dev"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpMountSetattr && s.Path == "/dev" })
	case breach.Of("target_links"):
		resolve(p, func(s *plan.Step) bool { return s.Result == plan.RegTarget }, 0)
	case breach.Of("working_directory_links"):
		resolve(p, func(s *plan.Step) bool { return s.Field == "process.cwd" }, 0)
	default:
		breachNamespaces(p)
	}
}

// breachNamespaces leaves the sandbox in a namespace of the host's.
func breachNamespaces(p *plan.Plan) {
	switch {
	case breach.Of("user_namespace"):
		p.Clone &^= plan.CloneNewUser
		p.UIDMap, p.GIDMap = nil, nil
		// Only with a user namespace of its own does the kernel keep what is
		// mounted from reaching the host.
		private := plan.Step{Op: plan.OpMount, Path: "/", Args: []plan.Arg{{Kind: plan.ArgString, S: "none"}, {Kind: plan.ArgString, S: "/"},
			{}, {N: unix.MS_REC | unix.MS_PRIVATE}, {}}}
		p.Setup = slices.Insert(p.Setup, 1, private)
	case breach.Of("network_namespace"):
		p.Clone &^= plan.CloneNewNet
		drop(p, func(s *plan.Step) bool { return s.Path == "lo" })
	case breach.Of("ipc_namespace"):
		p.Clone &^= plan.CloneNewIPC
	case breach.Of("uts_namespace"):
		p.Clone &^= plan.CloneNewUTS
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpSethostname })
	case breach.Of("time_namespace"):
		p.Clone &^= plan.CloneNewTime
	case breach.Of("pid_namespace"):
		p.Clone &^= plan.CloneNewPID
	case breach.Of("cgroup_namespace"):
		drop(p, func(s *plan.Step) bool { return s.Op == plan.OpUnshare })
	}
}

// drop takes the steps out that match.
func drop(p *plan.Plan, match func(*plan.Step) bool) {
	for _, steps := range []*[]plan.Step{&p.Setup, &p.Payload, &p.Command, &p.Init} {
		*steps = slices.DeleteFunc(*steps, func(s plan.Step) bool { return match(&s) })
	}
}

// resolve replaces how paths of matching openat2 steps are resolved: the last
// of the three words of struct open_how.
func resolve(p *plan.Plan, match func(*plan.Step) bool, flags byte) {
	for _, steps := range [][]plan.Step{p.Setup, p.Payload, p.Command} {
		for i := range steps {
			if s := &steps[i]; s.Op == plan.OpOpenat2 && match(s) {
				s.Args = slices.Clone(s.Args)
				s.Args[2].S = s.Args[2].S[:16] + string([]byte{flags, 0, 0, 0, 0, 0, 0, 0})
			}
		}
	}
}
