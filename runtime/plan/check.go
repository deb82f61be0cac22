package plan

import (
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// check refuses every field that the plan would otherwise pass over, and every
// configuration without the walls that capsule never goes without.
func check(s *specs.Spec, f Facts) error {
	var all fault.List
	refuse := func(bad bool, field, why string) {
		if bad {
			all = append(all, fault.New(fault.InvalidBundle, "compile plan", field+" "+why).WithField(field))
		}
	}
	const later = "is not supported"
	if s.Process == nil || s.Linux == nil || s.Root == nil {
		return fault.New(fault.InvalidBundle, "compile plan", "process, root and linux are required").WithField("process")
	}
	p, l := s.Process, s.Linux
	refuse(len(p.Args) == 0, "process.args", "is empty")
	refuse(!path.IsAbs(p.Cwd), "process.cwd", "is not absolute")
	refuse(p.Terminal, "process.terminal", later)
	refuse(p.CommandLine != "", "process.commandLine", later)
	refuse(p.ApparmorProfile != "", "process.apparmorProfile", later)
	refuse(p.SelinuxLabel != "", "process.selinuxLabel", later)
	refuse(p.OOMScoreAdj != nil, "process.oomScoreAdj", later)
	refuse(p.Scheduler != nil, "process.scheduler", later)
	refuse(p.IOPriority != nil, "process.ioPriority", later)
	refuse(p.ExecCPUAffinity != nil, "process.execCPUAffinity", later)
	refuse(!p.NoNewPrivileges, "process.noNewPrivileges", "must be true")
	if caps := p.Capabilities; caps != nil {
		refuse(len(caps.Bounding)+len(caps.Effective)+len(caps.Inheritable)+len(caps.Permitted)+len(caps.Ambient) > 0,
			"process.capabilities", "other than empty sets "+later)
	}
	refuse(f.Rootless && len(p.User.AdditionalGids) > 0, "process.user.additionalGids", "needs root")
	h := s.Hooks
	//lint:ignore SA1019 A deprecated hook is refused like the others.
	refuse(h != nil && len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop)+len(h.Prestart) > 0, "hooks", later)
	refuse(len(l.Devices) > 0, "linux.devices", "besides the default ones "+later)
	refuse(len(l.NetDevices) > 0, "linux.netDevices", later)
	refuse(len(l.Sysctl) > 0, "linux.sysctl", later)
	refuse(l.IntelRdt != nil, "linux.intelRdt", later)
	refuse(l.MountLabel != "", "linux.mountLabel", later)
	refuse(l.Personality != nil, "linux.personality", later)
	refuse(len(l.TimeOffsets) > 0, "linux.timeOffsets", later)
	refuse(l.MemoryPolicy != nil, "linux.memoryPolicy", later)
	refuse(l.RootfsPropagation != "" && !strings.HasSuffix(l.RootfsPropagation, "private"), "linux.rootfsPropagation", "other than private "+later)
	refuse((l.Seccomp != nil) != (len(f.Filter) > 0), "linux.seccomp", "has no compiled program")
	refuse(f.Listener != 0 && f.NoInit, "linux.seccomp", "cannot have a listener without an init")
	checkNamespaces(l, refuse)
	for i, m := range s.Mounts {
		field := "mounts[" + strconv.Itoa(i) + "]"
		refuse(!path.IsAbs(m.Destination) || path.Clean(m.Destination) != m.Destination || m.Destination == "/" || strings.IndexByte(m.Destination, 0) >= 0, field+".destination", "is not an absolute, clean path below /")
		refuse(f.Rootless && len(m.UIDMappings)+len(m.GIDMappings) > 0, field+".uidMappings", "needs root")
	}
	return all.Err()
}

func checkNamespaces(l *specs.Linux, refuse func(bool, string, string)) {
	have := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range l.Namespaces {
		field := "linux.namespaces[" + strconv.Itoa(i) + "]"
		refuse(ns.Path != "", field+".path", "is not supported")
		refuse(have[ns.Type], field+".type", "stands twice")
		have[ns.Type] = true
		switch ns.Type {
		case specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace,
			specs.NetworkNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			refuse(true, field+".type", "is unknown")
		}
	}
	for _, t := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		refuse(!have[t], "linux.namespaces", "lacks "+string(t))
	}
	refuse(len(l.UIDMappings) == 0, "linux.uidMappings", "is empty")
	refuse(len(l.GIDMappings) == 0, "linux.gidMappings", "is empty")
}
