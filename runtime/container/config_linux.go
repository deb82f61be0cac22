package container

import (
	"context"
	"hash/fnv"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container/resources"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/spec/fault"
)

// Load reads the configuration of a bundle.
func Load(bundle string) (*specs.Spec, error) {
	name := filepath.Join(bundle, "config.json")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidBundle, "read bundle", err).WithPath(name).WithHint("Name a directory with a config.json by --bundle.")
	}
	s, err := specjson.Read(text)
	if err != nil {
		return nil, fault.From(err, fault.InvalidBundle).WithPath(name)
	}
	if major, _, _ := strings.Cut(s.Version, "."); major != "1" {
		return nil, fault.New(fault.InvalidBundle, "read bundle", strconv.Quote(s.Version)+" is no version 1 of the specification").WithField("ociVersion").WithPath(name)
	}
	return s, nil
}

// resolve makes the paths of a configuration canonical: launch follows no link.
func resolve(s *specs.Spec, bundle string) (map[string]plan.Kind, error) {
	kinds := map[string]plan.Kind{"/proc/keys": kindOf("/proc/keys")}
	if s.Root == nil || s.Root.Path == "" {
		return nil, fault.New(fault.InvalidBundle, "read bundle", "has no root").WithField("root.path")
	}
	real := func(p, field string) (string, error) {
		if !path.IsAbs(p) {
			p = filepath.Join(bundle, p)
		}
		found, err := filepath.EvalSymlinks(p)
		if err != nil {
			return "", fault.Wrap(fault.InvalidBundle, "resolve", err).WithField(field).WithPath(p)
		}
		return found, nil
	}
	var err error
	if s.Root.Path, err = real(s.Root.Path, "root.path"); err != nil {
		return nil, err
	}
	if kindOf(s.Root.Path) != plan.KindDir {
		return nil, fault.New(fault.InvalidBundle, "read bundle", "is not a directory").WithField("root.path").WithPath(s.Root.Path)
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if !path.IsAbs(m.Destination) {
			// "Runtimes SHOULD treat it as relative to /", says the specification.
			m.Destination = path.Join("/", m.Destination)
		}
		if !isBind(m) {
			continue
		}
		if m.Source, err = real(m.Source, "mounts["+strconv.Itoa(i)+"].source"); err != nil {
			return nil, err
		}
		kinds[m.Source] = kindOf(m.Source)
	}
	return kinds, nil
}

func isBind(m *specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}

func kindOf(p string) plan.Kind {
	var st unix.Stat_t
	if unix.Stat(p, &st) != nil {
		return plan.KindMissing
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return plan.KindDir
	}
	return plan.KindFile
}

// boundDevices checks that devices which a user namespace only can show are those of the
// host.
func boundDevices(s *specs.Spec) error {
	var all fault.List
	for i, d := range s.Linux.Devices {
		if d.Type == "p" {
			continue
		}
		kind := map[string]uint32{"b": unix.S_IFBLK}[d.Type]
		if kind == 0 {
			kind = unix.S_IFCHR
		}
		var st unix.Stat_t
		if err := unix.Lstat(d.Path, &st); err != nil || st.Mode&unix.S_IFMT != kind || st.Rdev != unix.Mkdev(uint32(d.Major), uint32(d.Minor)) {
			all = append(all, fault.New(fault.InvalidBundle, "bind device", "a user namespace can only show a device that the host has under the same path").
				WithField("linux.devices["+strconv.Itoa(i)+"]").WithPath(d.Path))
		}
	}
	return all.Err()
}

// defaultGroup is where the control group of a container goes that names none: below a
// directory for each state directory, for what is in another may have the same id.
func (s *Store) defaultGroup(id string) string {
	at, err := filepath.Abs(s.Root)
	if err != nil {
		at = s.Root
	}
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(at)) // never fails
	return resources.Own + "/@" + strconv.FormatUint(sum.Sum64(), 36) + "/" + id
}

// cgroupPath is where the control group goes. A relative path is below capsule's own.
func (s *Store) cgroupPath(config *specs.Spec, id string) (string, error) {
	p := config.Linux.CgroupsPath
	switch {
	case p == "":
		p = s.defaultGroup(id)
	case strings.Count(p, ":") == 2 && !strings.Contains(p, "/"):
		return "", fault.New(fault.InvalidBundle, "make cgroup", "is for the systemd driver").WithField("linux.cgroupsPath").
			WithHint("Give --systemd-cgroup, or name a path of the cgroup file system.")
	case !path.IsAbs(p):
		p = resources.Own + "/" + p
	}
	if strings.Contains("/"+p+"/", "/../") {
		return "", fault.New(fault.InvalidBundle, "make cgroup", "leads out of the hierarchy").WithField("linux.cgroupsPath").WithPath(p)
	}
	return path.Clean(p), nil
}

// Flags of seccomp(2).
var filterFlags = map[specs.LinuxSeccompFlag]uint{"SECCOMP_FILTER_FLAG_TSYNC": 1, specs.LinuxSeccompFlagLog: 2, specs.LinuxSeccompFlagSpecAllow: 4,
	specs.LinuxSeccompFlagWaitKillableRecv: waitKillable}

const waitKillable = 1 << 5 // Linux 5.19

// filter compiles linux.seccomp.
func (r *Runtime) filter(s *specs.Spec) (code []byte, flags uint, err error) {
	o := s.Linux.Seccomp
	if o == nil {
		return nil, 0, nil
	}
	if err := checkListener(s); err != nil {
		return nil, 0, err
	}
	listens := notifies(o)
	for i, f := range o.Flags {
		bit, ok := filterFlags[f]
		if !ok {
			return nil, 0, fault.New(fault.Seccomp, "compile system call filter", strconv.Quote(string(f))+" is not supported").
				WithField("linux.seccomp.flags[" + strconv.Itoa(i) + "]")
		}
		flags |= bit
	}
	dir := r.Filters
	if dir == "" {
		dir = filepath.Join(r.Root, ".filters")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, 0, fault.Wrap(fault.IO, "make state directory", err).WithPath(dir)
	}
	cache := seccomp.Cache{Dir: dir, Helper: r.SeccompHelper}
	o, twice := seccomp.Decided(o)
	if len(twice) > 0 && r.Debug {
		r.Warn(fault.New(fault.Seccomp, "compile system call filter", "two rules without conditions for "+strings.Join(twice, ", ")+": the stricter holds").WithField("linux.seccomp"))
	}
	if !listens {
		plain := *o
		plain.ListenerPath, plain.ListenerMetadata = "", "" // nothing to tell anybody
		plain.Flags = withoutWait(o.Flags)
		code, err = cache.Exact(context.Background(), &plain)
		return code, flags &^ waitKillable, err
	}
	o, data := traced(o)
	if code, err = cache.Exact(context.Background(), o); err != nil {
		return nil, 0, err
	}
	// The kernel gives either a listener or the number of a thread that cannot be in sync: there is one.
	return notified(code, data), flags&^filterFlags["SECCOMP_FILTER_FLAG_TSYNC"] | plan.FilterListener, nil
}

// permitted are the capabilities that this process has.
func permitted() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fault.Wrap(fault.Capabilities, "capget", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// lastCapability is the highest of the kernel; 0: not known.
func lastCapability() int {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || bad != nil {
		return 0
	}
	return n
}
