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
	refuse := refuser(&all)
	const later = "is not supported"
	if s.Process == nil || s.Linux == nil || s.Root == nil {
		return fault.New(fault.InvalidBundle, "compile plan", "process, root and linux are required").WithField("process")
	}
	p, l := s.Process, s.Linux
	refuse(len(p.Args) == 0, "process.args", "is empty")
	refuse(!path.IsAbs(p.Cwd), "process.cwd", "is not absolute")
	refuse(p.Terminal, "process.terminal", later+"; set it to false")
	refuse(p.CommandLine != "", "process.commandLine", later)
	refuse(p.ApparmorProfile != "", "process.apparmorProfile", later)
	refuse(p.SelinuxLabel != "", "process.selinuxLabel", later)
	refuse(p.OOMScoreAdj != nil, "process.oomScoreAdj", later)
	refuse(p.Scheduler != nil, "process.scheduler", later)
	refuse(p.IOPriority != nil, "process.ioPriority", later)
	refuse(p.ExecCPUAffinity != nil, "process.execCPUAffinity", later)
	refuse(!p.NoNewPrivileges, "process.noNewPrivileges", "must be true")
	caps, field, name := capabilitiesOf(p)
	refuse(name != "", field, strconv.Quote(name)+" is not a capability")
	// With some of them the command could write process 1's reports, which the verdict is made of.
	refuse(caps.any() && !f.NoInit, "process.capabilities", "other than empty sets need the command to be process 1 (annotation run.capsule.init: \"false\")")
	refuse(p.User.Username != "", "process.user.username", later)
	refuseUser(&p.User, refuse)
	refuse(f.Rootless && len(p.User.AdditionalGids) > 0, "process.user.additionalGids", "needs root")
	h := s.Hooks
	//lint:ignore SA1019 A deprecated hook is refused like the others.
	refuse(h != nil && len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop)+len(h.Prestart) > 0, "hooks", later)
	refuse(len(l.Devices) > 0, "linux.devices", "besides the default ones "+later)
	refuse(len(l.NetDevices) > 0, "linux.netDevices", later)
	refuse(l.IntelRdt != nil, "linux.intelRdt", later)
	refuse(l.MountLabel != "", "linux.mountLabel", later)
	refuse(l.Personality != nil, "linux.personality", later)
	refuse(len(l.TimeOffsets) > 0, "linux.timeOffsets", later)
	refuse(l.MemoryPolicy != nil, "linux.memoryPolicy", later)
	refuse(l.RootfsPropagation != "" && !strings.HasSuffix(l.RootfsPropagation, "private"), "linux.rootfsPropagation", "other than private "+later)
	refuse((l.Seccomp != nil) != (len(f.Filter) > 0), "linux.seccomp", "has no compiled program")
	refuse(f.Listener != 0 && f.NoInit, "linux.seccomp", "cannot have a listener without an init")
	checkPlatforms(s, refuse)
	checkResources(l.Resources, refuse)
	checkNamespaces(l, refuse)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		// Texts that nobody sees are not made: there may be 200 mounts.
		if d := m.Destination; !path.IsAbs(d) || path.Clean(d) != d || d == "/" || strings.IndexByte(d, 0) >= 0 {
			refuse(true, mountField(i)+".destination", "is not an absolute, clean path below /")
		}
		if !mountable(*m) {
			refuse(true, mountField(i)+".type", strconv.Quote(m.Type)+" "+later)
		}
		for k, o := range m.Options {
			if unbuilt(o) {
				refuse(true, mountField(i)+".options["+strconv.Itoa(k)+"]", strconv.Quote(o)+" "+later)
			}
		}
		if f.Rootless && len(m.UIDMappings)+len(m.GIDMappings) > 0 {
			refuse(true, mountField(i)+".uidMappings", "needs root")
		}
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
	refuseSysctl(l, have, refuse)
	for _, t := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		refuse(!have[t], "linux.namespaces", "lacks "+string(t))
	}
	refuse(len(l.UIDMappings) == 0, "linux.uidMappings", "is empty")
	refuse(len(l.GIDMappings) == 0, "linux.gidMappings", "is empty")
}

// checkPlatforms refuses the sections of other systems.
func checkPlatforms(s *specs.Spec, refuse func(bool, string, string)) {
	const why = "is for another platform"
	refuse(s.Solaris != nil, "solaris", why)
	refuse(s.Windows != nil, "windows", why)
	refuse(s.VM != nil, "vm", why)
	refuse(s.ZOS != nil, "zos", why)
	refuse(s.FreeBSD != nil, "freebsd", why)
}

// checkResources refuses what no control group of ours is given; what is left
// out here runtime/cgroup sets or refuses.
func checkResources(r *specs.LinuxResources, refuse func(bool, string, string)) {
	if r == nil {
		return
	}
	const later, field = "is not supported", "linux.resources."
	if m := r.Memory; m != nil {
		//lint:ignore SA1019 A deprecated field is refused like the others.
		refuse(m.Kernel != nil, field+"memory.kernel", later)
		refuse(m.KernelTCP != nil, field+"memory.kernelTCP", later)
		refuse(m.Swappiness != nil, field+"memory.swappiness", later)
		refuse(m.UseHierarchy != nil && !*m.UseHierarchy, field+"memory.useHierarchy", "must be true")
		refuse(m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate, field+"memory.checkBeforeUpdate", later)
		refuse(m.Swap != nil && *m.Swap != 0 && m.Limit == nil, field+"memory.swap", "means nothing without limit")
	}
	if c := r.CPU; c != nil {
		refuse(c.Burst != nil && *c.Burst != 0, field+"cpu.burst", later)
		refuse(c.Idle != nil && *c.Idle != 0, field+"cpu.idle", later)
	}
	checkDevices(r.Devices, refuse)
}

// checkDevices accepts what holds in a sandbox without a rule: no device node
// but the default ones can be made or opened, for the user namespace refuses mknod
// and nothing but those is mounted with devices on. Rules that allow more allow
// nodes that do not exist.
func checkDevices(rules []specs.LinuxDeviceCgroup, refuse func(bool, string, string)) {
	for i, d := range rules {
		all := (d.Type == "" || d.Type == "a") && d.Major == nil && d.Minor == nil
		field := "linux.resources.devices[" + strconv.Itoa(i) + "]"
		refuse(d.Allow && all, field, "allows every device, which is not supported")
		refuse(!d.Allow && !all, field, "denies single devices, which is not supported; deny all of them")
	}
}

// unbuilt names the options of the OCI runtime specification that would
// otherwise reach the file system as words of its own.
func unbuilt(option string) bool {
	switch option {
	case "async", "sync", "dirsync", "mand", "nomand", "iversion", "noiversion", "silent", "loud", "lazytime", "nolazytime",
		"remount", "tmpcopyup", "acl", "noacl":
		return true
	}
	return false
}

// mountable tells whether mounts of this type are made. Other file systems name
// host paths or servers among their options, which nothing here would judge.
func mountable(m specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	switch m.Type {
	case "bind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2":
		return true
	}
	return false
}

// refuseUser refuses the number that setresuid(2) takes for "as it is", which would be root, and
// that no user has.
func refuseUser(u *specs.User, refuse func(bool, string, string)) {
	const nobody, why = 1<<32 - 1, "is the number of nobody"
	refuse(u.UID == nobody, "process.user.uid", why)
	refuse(u.GID == nobody, "process.user.gid", why)
}
