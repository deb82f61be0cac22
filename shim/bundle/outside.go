package bundle

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Own says whether capsule made the configuration for an execution of its own:
// only then does its root come out of an annotation.
func Own(s *specs.Spec) bool { return s.Annotations[plan.AnnotationSkeleton] != "" }

// HasInit says whether a reaping process 1 stands in front of the command. In a
// bundle from outside the command is process 1, as under every OCI runtime,
// unless the annotation says "true".
func HasInit(s *specs.Spec) bool {
	switch s.Annotations[AnnotationInit] {
	case "true":
		return true
	case "":
		return Own(s)
	}
	return false
}

// Request is what a bundle asks for in the terms of a request: what policy judges,
// and what the verdict is told in. base has what a bundle cannot say: deadline,
// output, labels. A limit that the bundle does not have is the largest that a
// request can express, and not asked for. E2009 when the bundle has no command.
func Request(s *specs.Spec, dir string, base *spec.Request) (*spec.Request, error) {
	if s.Process == nil || len(s.Process.Args) == 0 {
		return nil, fault.New(fault.InvalidBundle, "read bundle", "has no command").WithField("process.args")
	}
	if s.Root == nil || s.Linux == nil {
		return nil, fault.New(fault.InvalidBundle, "read bundle", "root and linux are required").WithField("root")
	}
	r := *base
	r.Command = s.Process.Args
	r.Environment = map[string]string{}
	for _, kv := range s.Process.Env {
		key, value, _ := strings.Cut(kv, "=")
		r.Environment[key] = value
	}
	limits(&r.Resources, s)
	i := &r.Isolation
	i.Backend, i.Init, i.Hostname = spec.BackendNamespace, HasInit(s), s.Hostname
	i.WorkingDirectory = s.Process.Cwd
	i.User = id(s.Process.User.UID) + ":" + id(s.Process.User.GID)
	i.Network = !hasNamespace(s, specs.NetworkNamespace)
	i.ReadonlyPaths, i.WritablePaths, i.BindMounts = nil, nil, nil
	for _, m := range s.Mounts {
		if IsBind(&m) {
			i.BindMounts = append(i.BindMounts, spec.BindMount{Source: m.Source, Destination: m.Destination, Readonly: readonly(&m)})
		}
	}
	i.Rootfs = nil
	if !Own(s) {
		root := RootPath(s, dir)
		i.Rootfs = &root
	}
	if s.Linux.Seccomp != nil {
		object, err := json.Marshal(s.Linux.Seccomp)
		if err != nil {
			return nil, fault.Wrap(fault.InvalidBundle, "encode seccomp", err).WithField("linux.seccomp")
		}
		i.Seccomp = spec.Seccomp{Custom: object}
	}
	return &r, nil
}

// limits takes over what linux.resources says.
func limits(r *spec.Resources, s *specs.Spec) {
	const unlimited = 1 << 50 // of a request
	r.MemoryBytes, r.CPUQuota, r.IO = unlimited, nil, nil
	r.MaxPids, r.DiskBytes, r.CPUShares = 1<<15, unlimited, 1024
	r.Rlimits = map[string]spec.Rlimit{}
	for _, l := range s.Process.Rlimits {
		r.Rlimits[strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))] = spec.Rlimit{Soft: l.Soft, Hard: l.Hard}
	}
	o := s.Linux.Resources
	if o == nil {
		return
	}
	if o.Memory != nil && o.Memory.Limit != nil && *o.Memory.Limit > 0 {
		r.MemoryBytes = *o.Memory.Limit
	}
	if o.Pids != nil && o.Pids.Limit != nil && *o.Pids.Limit > 0 {
		if r.MaxPids = *o.Pids.Limit; HasInit(s) {
			r.MaxPids-- // see resources
		}
	}
	if o.CPU != nil && o.CPU.Shares != nil && *o.CPU.Shares > 0 {
		r.CPUShares = int64(*o.CPU.Shares)
	}
	if o.CPU != nil && o.CPU.Quota != nil && *o.CPU.Quota > 0 {
		period := uint64(cpuPeriod)
		if o.CPU.Period != nil && *o.CPU.Period > 0 {
			period = *o.CPU.Period
		}
		quota := float64(*o.CPU.Quota) / float64(period)
		r.CPUQuota = &quota
	}
}

// RootPath is the root of the bundle on the host.
func RootPath(s *specs.Spec, dir string) string {
	if path.IsAbs(s.Root.Path) {
		return path.Clean(s.Root.Path)
	}
	return path.Join(dir, s.Root.Path)
}

// IsBind says whether a mount shows something of the host's.
func IsBind(m *specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// readonly: the last of the options that decide about it.
func readonly(m *specs.Mount) bool {
	ro := false
	for _, o := range m.Options {
		switch o {
		case "ro", "rro":
			ro = true
		case "rw", "rrw":
			ro = false
		}
	}
	return ro
}

func hasNamespace(s *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

// Place is where on this host a bundle from outside is to run.
type Place struct {
	// SlotBase is the first of IDRange host ids for a bundle without a user
	// namespace of its own. Not used when Rootless.
	SlotBase uint32
	// TimeNamespace and CgroupNamespace say that the kernel has them.
	TimeNamespace, CgroupNamespace bool
	// Rootless says that only the caller's own UID and GID can be mapped.
	Rootless bool
	UID, GID uint32
	// Seccomp names the filter that is put where the bundle has none. Empty: none is.
	Seccomp string
}

// Confine adds to a configuration from outside the walls that capsule never
// goes without, and says which, in sentences. It takes nothing away. idmapRoot
// says that ids on disk are to appear inside as they are: a bundle without a user
// namespace has its files owned by the ids that it knows.
func Confine(s *specs.Spec, p Place) (added []string, idmapRoot bool) {
	if s.Linux == nil || s.Process == nil {
		return nil, false // the plan refuses it
	}
	add := func(kind specs.LinuxNamespaceType) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
		added = append(added, "capsule added a "+string(kind)+" namespace, which the bundle has not")
	}
	if !hasNamespace(s, specs.UserNamespace) && len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) == 0 {
		add(specs.UserNamespace)
		u := s.Process.User
		if p.Rootless {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: u.UID, HostID: p.UID, Size: 1}}
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: u.GID, HostID: p.GID, Size: 1}}
		} else {
			maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: p.SlotBase, Size: IDRange}}
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
			idmapRoot = true
		}
	}
	if p.CgroupNamespace && !hasNamespace(s, specs.CgroupNamespace) {
		add(specs.CgroupNamespace)
	}
	if p.TimeNamespace && !hasNamespace(s, specs.TimeNamespace) {
		add(specs.TimeNamespace)
	}
	if !s.Process.NoNewPrivileges {
		s.Process.NoNewPrivileges = true
		added = append(added, "capsule set noNewPrivileges, which the bundle does not")
	}
	if s.Linux.Seccomp == nil && p.Seccomp != "" {
		added = append(added, "capsule put its "+p.Seccomp+" system call filter where the bundle has none")
	}
	return added, idmapRoot
}
