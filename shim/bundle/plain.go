package bundle

import specs "github.com/opencontainers/runtime-spec/specs-go"

// plain says that no field is set but those that the hand-written encoder
// knows. A test sets every field of specs.Spec, one at a time, and so finds
// fields that a later version of the specification adds.
func plain(s *specs.Spec) bool {
	if s.Hooks != nil || s.Solaris != nil || s.Windows != nil || s.VM != nil || s.ZOS != nil || s.FreeBSD != nil {
		return false
	}
	return (s.Process == nil || plainProcess(s.Process)) && (s.Linux == nil || plainLinux(s.Linux))
}

func plainProcess(p *specs.Process) bool {
	return p.ConsoleSize == nil && p.CommandLine == "" && p.ApparmorProfile == "" && p.OOMScoreAdj == nil &&
		p.Scheduler == nil && p.SelinuxLabel == "" && p.IOPriority == nil && p.ExecCPUAffinity == nil &&
		len(p.User.AdditionalGids) == 0 && p.User.Username == ""
}

func plainLinux(l *specs.Linux) bool {
	if len(l.Sysctl) > 0 || len(l.Devices) > 0 || len(l.NetDevices) > 0 || l.MountLabel != "" || l.IntelRdt != nil ||
		l.MemoryPolicy != nil || l.Personality != nil || len(l.TimeOffsets) > 0 {
		return false
	}
	if s := l.Seccomp; s != nil && (s.ListenerPath != "" || s.ListenerMetadata != "") {
		return false
	}
	return l.Resources == nil || plainResources(l.Resources)
}

func plainResources(r *specs.LinuxResources) bool {
	if len(r.Devices) > 0 || r.BlockIO != nil || len(r.HugepageLimits) > 0 || r.Network != nil || len(r.Rdma) > 0 || len(r.Unified) > 0 {
		return false
	}
	//lint:ignore SA1019 A deprecated field is written like the others.
	if m := r.Memory; m != nil && (m.Reservation != nil || m.Kernel != nil || m.KernelTCP != nil || m.Swappiness != nil ||
		m.DisableOOMKiller != nil || m.UseHierarchy != nil || m.CheckBeforeUpdate != nil) {
		return false
	}
	if c := r.CPU; c != nil && (c.Burst != nil || c.RealtimeRuntime != nil || c.RealtimePeriod != nil ||
		c.Cpus != "" || c.Mems != "" || c.Idle != nil) {
		return false
	}
	return true
}
