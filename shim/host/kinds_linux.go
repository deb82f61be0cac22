package host

import (
	"github.com/capsule-run/capsule/runtime/plan"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Kinds says what the bind sources of a configuration are on the host, and
// what its masked and read-only paths are in this kernel's /proc: plan.Facts
// wants both. A symbolic link counts as a file; whoever opens it refuses it.
// It is for any configuration, Build's or an outside one.
func Kinds(s *specs.Spec) map[string]plan.Kind {
	kinds := make(map[string]plan.Kind, 48)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if isBind(m) {
			kinds[m.Source] = KindAt(m.Source)
		}
	}
	// Listed or not: whether the kernel has keys decides about a step of the plan.
	kinds["/proc/keys"] = KindAt("/proc/keys")
	if s.Linux == nil {
		return kinds
	}
	for _, list := range [...][]string{s.Linux.MaskedPaths, s.Linux.ReadonlyPaths} {
		for _, path := range list {
			kinds[path] = KindAt(path)
		}
	}
	return kinds
}

func isBind(m *specs.Mount) bool {
	if m.Type == "bind" {
		return true
	}
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// KindAt is what stands at a path of the host, a link not followed.
func KindAt(path string) plan.Kind {
	var st unix.Stat_t
	if unix.Fstatat(unix.AT_FDCWD, path, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return plan.KindMissing
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return plan.KindDir
	}
	return plan.KindFile
}
