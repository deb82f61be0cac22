package plan

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// checkContainer refuses every field of a container that its plan would otherwise
// pass over.
func checkContainer(s *specs.Spec, f Facts) error {
	if s.Linux == nil || s.Root == nil || s.Process == nil {
		return fault.New(fault.InvalidBundle, "compile plan", "process, root and linux are required").WithField("process")
	}
	var all fault.List
	refuse := refuser(&all)
	l := s.Linux
	const later = "is not supported"
	refuseProcess(s, f, refuse)
	refuse(len(l.NetDevices) > 0, "linux.netDevices", later)
	refuse(l.IntelRdt != nil, "linux.intelRdt", later)
	refuseMemoryPolicy(l.MemoryPolicy, refuse)
	refuse(l.RootfsPropagation != "" && rootPropagations[l.RootfsPropagation] == 0, "linux.rootfsPropagation", strconv.Quote(l.RootfsPropagation)+" is unknown")
	if p := l.Personality; p != nil {
		_, known := personas[p.Domain]
		refuse(!known, "linux.personality.domain", "is unknown")
		refuse(len(p.Flags) > 0, "linux.personality.flags", later)
	}
	refuseSeccomp(s, f, refuse)
	checkPlatforms(s, refuse)
	refuseNamespaces(s, f, refuse)
	refuseMounts(s, refuse)
	refuseDevices(s, refuse)
	refuseHooks(s.Hooks, refuse)
	for name, list := range map[string][]string{"linux.maskedPaths": l.MaskedPaths, "linux.readonlyPaths": l.ReadonlyPaths} {
		for i, p := range list {
			refuse(!cleanAbsolute(p) || path.Clean(p) == "/", name+"["+strconv.Itoa(i)+"]", "is not an absolute path below /")
		}
	}
	return all.Err()
}

// checkProcess is checkContainer for a process that comes later.
func checkProcess(s *specs.Spec, f Facts) error {
	if s.Process == nil || s.Linux == nil {
		return fault.New(fault.InvalidBundle, "compile plan", "process and linux are required").WithField("process")
	}
	var all fault.List
	refuse := refuser(&all)
	refuseProcess(s, f, refuse)
	refuseSeccomp(s, f, refuse)
	return all.Err()
}

func refuser(all *fault.List) func(bool, string, string) {
	return func(bad bool, field, why string) {
		if bad {
			*all = append(*all, fault.New(fault.InvalidBundle, "compile plan", field+" "+why).WithField(field).WithHint(remedy(field)))
		}
	}
}

// remedy says what to do about a field that is refused; empty: what its message says.
func remedy(field string) string {
	switch {
	case field == "process.terminal":
		return "Set it to false, for example with jq '.process.terminal = false': the command then has pipes, and -i passes stdin on."
	case field == "process.oomScoreAdj":
		return "Take it out: the command has the score of capsule, which what is started with choom(1) has too."
	case field == "hooks":
		return "Take them out: they are programs of the host, and capsule runs none for a bundle."
	case strings.HasPrefix(field, "linux.namespaces[") && strings.HasSuffix(field, ".path"):
		return "Take the path out: the sandbox gets a new namespace of that type."
	case strings.HasPrefix(field, "linux.sysctl."):
		return "Take it out: it would change the host. Those of a network, IPC or UTS namespace that the bundle has are set."
	}
	return ""
}

func refuseProcess(s *specs.Spec, f Facts, refuse func(bool, string, string)) {
	p := s.Process
	const later = "is not supported"
	refuse(len(p.Args) == 0, "process.args", "is empty")
	refuse(!path.IsAbs(p.Cwd), "process.cwd", "is not absolute")
	refuse(p.CommandLine != "", "process.commandLine", later)
	refuse(p.ApparmorProfile != "" && !f.Container.AppArmor, "process.apparmorProfile", "needs a kernel with AppArmor")
	refuse(strings.IndexByte(p.ApparmorProfile, 0) >= 0, "process.apparmorProfile", "has a NUL")
	refuse(p.SelinuxLabel != "", "process.selinuxLabel", later)
	refuse(s.Linux.MountLabel != "" && f.Container.SELinux, "linux.mountLabel", later)
	if a := p.ExecCPUAffinity; a != nil {
		for field, list := range map[string]string{"initial": a.Initial, "final": a.Final} {
			_, ok := CPUs(list)
			refuse(list != "" && !ok, "process.execCPUAffinity."+field, "is no list of CPUs")
		}
	}
	refuse(p.User.Username != "", "process.user.username", later)
	refuseUser(&p.User, refuse)
	refuse((f.Container.NoSetgroups || f.Container.GroupsFirst) && len(p.User.AdditionalGids) > 0, "process.user.additionalGids", "cannot be entered in this user namespace, which denies setgroups")
	_, field, name := capabilitiesOf(p)
	refuse(name != "", field, strconv.Quote(name)+" is not a capability")
	refuse(len(f.Filter) > 0 && p.User.Umask != nil && *p.User.Umask > 0o777, "process.user.umask", "is larger than 0777")
	seen := map[string]bool{}
	for i, l := range p.Rlimits {
		field := "process.rlimits[" + strconv.Itoa(i) + "]"
		_, known := resources[l.Type]
		refuse(!known, field+".type", strconv.Quote(l.Type)+" is unknown")
		refuse(seen[l.Type], field+".type", "stands twice")
		refuse(l.Soft > l.Hard, field+".soft", "is larger than hard")
		seen[l.Type] = true
	}
	if o := p.Scheduler; o != nil {
		_, known := policies[o.Policy]
		refuse(!known, "process.scheduler.policy", "is unknown")
		for i, flag := range o.Flags {
			refuse(schedFlags[flag] == 0, "process.scheduler.flags["+strconv.Itoa(i)+"]", "is unknown")
		}
	}
	if o := p.IOPriority; o != nil {
		refuse(ioClasses[o.Class] == 0, "process.ioPriority.class", "is unknown")
		refuse(o.Priority < 0 || o.Priority > 7, "process.ioPriority.priority", "is not between 0 and 7")
	}
}

func refuseMemoryPolicy(m *specs.LinuxMemoryPolicy, refuse func(bool, string, string)) {
	if m == nil {
		return
	}
	_, known := memoryModes[m.Mode]
	refuse(!known, "linux.memoryPolicy.mode", strconv.Quote(string(m.Mode))+" is unknown")
	for i, f := range m.Flags {
		refuse(memoryFlags[f] == 0, "linux.memoryPolicy.flags["+strconv.Itoa(i)+"]", strconv.Quote(string(f))+" is unknown")
	}
	_, ok := CPUs(m.Nodes)
	refuse(m.Nodes != "" && !ok, "linux.memoryPolicy.nodes", "is no list of nodes")
}

func refuseSeccomp(s *specs.Spec, f Facts, refuse func(bool, string, string)) {
	o := s.Linux.Seccomp
	refuse((o != nil) != (len(f.Filter) > 0), "linux.seccomp", "has no compiled program")
	refuse(o != nil && o.ListenerPath != "" && !path.IsAbs(o.ListenerPath), "linux.seccomp.listenerPath", "is not absolute")
}

func refuseNamespaces(s *specs.Spec, f Facts, refuse func(bool, string, string)) {
	l := s.Linux
	have := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range l.Namespaces {
		_, known := kinds[ns.Type]
		refuse(!known, namespaceField(i)+".type", "is unknown")
		refuse(have[ns.Type], namespaceField(i)+".type", "stands twice")
		refuse(ns.Path != "" && !path.IsAbs(ns.Path), namespaceField(i)+".path", "is not absolute")
		// The root of every process of the host would become the container's.
		refuse(ns.Type == specs.MountNamespace && f.Container.Shared[ns.Type], namespaceField(i)+".path", "is the host's own")
		have[ns.Type] = true
	}
	user, time := namespaceOf(l, specs.UserNamespace), namespaceOf(l, specs.TimeNamespace)
	refuse(!have[specs.MountNamespace], "linux.namespaces", "lacks mount: capsule builds no container in the mounts of the host")
	refuse(len(l.TimeOffsets) > 0 && (time == nil || time.Path != ""), "linux.timeOffsets", "need a new time namespace")
	for clock, o := range l.TimeOffsets {
		refuse(!slices.Contains(clocks, clock), "linux.timeOffsets."+clock, "is no clock of a time namespace")
		refuse(o.Nanosecs > 999999999, "linux.timeOffsets."+clock+".nanosecs", "is a second or more")
	}
	for shared := range f.Container.Shared {
		delete(have, shared) // nothing is set there
	}
	refuse(s.Hostname != "" && !have[specs.UTSNamespace], "hostname", "needs a uts namespace other than the host's")
	refuse(s.Domainname != "" && !have[specs.UTSNamespace], "domainname", "needs a uts namespace other than the host's")
	fresh := user != nil && user.Path == ""
	refuse(fresh && (len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0), "linux.uidMappings", "and gidMappings are needed by a new user namespace")
	refuse(user == nil && len(l.UIDMappings)+len(l.GIDMappings) > 0, "linux.uidMappings", "need a user namespace")
	refuseSysctl(l, have, refuse)
}

// refuseSysctl refuses kernel parameters that are not those of a namespace in have.
func refuseSysctl(l *specs.Linux, have map[specs.LinuxNamespaceType]bool, refuse func(bool, string, string)) {
	for _, key := range slices.Sorted(maps.Keys(l.Sysctl)) {
		refuse(!namespaced(key, have), "linux.sysctl."+key, "belongs to no namespace that the container has")
	}
}

// namespaced tells whether a kernel parameter belongs to a namespace of the
// container's; the others are the host's.
func namespaced(key string, have map[specs.LinuxNamespaceType]bool) bool {
	file := strings.TrimPrefix(sysctlFile(key), "sys/")
	if path.Clean("/"+file) != "/"+file {
		return false
	}
	switch {
	case strings.HasPrefix(file, "net/"):
		return have[specs.NetworkNamespace]
	case strings.HasPrefix(file, "fs/mqueue/"), slices.Contains([]string{"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
		"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced"}, file):
		return have[specs.IPCNamespace]
	case file == "kernel/domainname" || file == "kernel/hostname":
		return have[specs.UTSNamespace]
	}
	return false
}

func refuseMounts(s *specs.Spec, refuse func(bool, string, string)) {
	pid, procs := namespaceOf(s.Linux, specs.PIDNamespace), 0
	for i, m := range s.Mounts {
		field := mountField(i)
		if m.Type == "proc" {
			procs++
			refuse(procs > 1 && pid != nil && pid.Path != "", field+".type", "is a second procfs of a pid namespace by path, which is not supported")
		}
		refuse(!cleanAbsolute(m.Destination) || path.Clean(m.Destination) == "/", field+".destination", "is not an absolute path below /")
		refuse(strings.Count(m.Destination, "/") > maxDepth, field+".destination", "is too deep")
		o, err := parseWords(m, field, true)
		refuse(err != nil, field+".options", "cannot be read")
		for k, word := range m.Options {
			refuse(word == "remount" || word == copyUp && m.Type != "tmpfs", field+".options["+strconv.Itoa(k)+"]", strconv.Quote(word)+" is not supported")
		}
		refuse(m.Type == "" && !o.bind, field+".type", "is empty")
		idmapped := o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0
		refuse(idmapped && !o.bind, field+".uidMappings", "are for binds")
		refuse(len(m.UIDMappings) == 0 && len(m.GIDMappings) > 0 || len(m.UIDMappings) > 0 && len(m.GIDMappings) == 0, field+".uidMappings", "and gidMappings come together")
		refuse(o.idmap && len(m.UIDMappings) == 0 && len(s.Linux.UIDMappings) == 0, field+".options", "ask for an idmapped mount without mappings")
	}
}

func refuseDevices(s *specs.Spec, refuse func(bool, string, string)) {
	seen := map[string]bool{}
	for i, d := range s.Linux.Devices {
		field := "linux.devices[" + strconv.Itoa(i) + "]"
		p := path.Clean(d.Path)
		refuse(!cleanAbsolute(d.Path) || p == "/", field+".path", "is not an absolute path below /")
		refuse(strings.Count(d.Path, "/") > maxDepth, field+".path", "is too deep")
		refuse(seen[p], field+".path", "stands twice")
		refuse(nodeTypes[d.Type] == 0, field+".type", strconv.Quote(d.Type)+" is unknown")
		refuse(d.Type != "p" && (d.Major < 0 || d.Major > 0xfff || d.Minor < 0 || d.Minor > 0xfffff), field+".major", "or minor is out of range")
		seen[p] = true
	}
}

// refuseHooks refuses what no hook can be: who asks for no time at all would wait for ever.
func refuseHooks(h *specs.Hooks, refuse func(bool, string, string)) {
	if h == nil {
		return
	}
	//lint:ignore SA1019 Deprecated hooks are called, so they are checked.
	prestart := h.Prestart
	for kind, list := range map[string][]specs.Hook{"prestart": prestart, "createRuntime": h.CreateRuntime, "createContainer": h.CreateContainer,
		"startContainer": h.StartContainer, "poststart": h.Poststart, "poststop": h.Poststop} {
		for i, one := range list {
			field := "hooks." + kind + "[" + strconv.Itoa(i) + "]"
			refuse(!path.IsAbs(one.Path), field+".path", "is not absolute")
			refuse(one.Timeout != nil && *one.Timeout <= 0, field+".timeout", "is not greater than zero")
		}
	}
}

// maxDepth bounds the directories above a mount point: the steps that make them are passed
// over by a count of 8 bits.
const maxDepth = 64

func namespaceField(i int) string { return "linux.namespaces[" + strconv.Itoa(i) + "]" }
