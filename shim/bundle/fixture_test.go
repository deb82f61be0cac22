package bundle

import (
	"strings"

	"github.com/capsule-run/capsule/spec"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// request is a request with every default of the contract filled in.
func request(change ...func(*spec.Request)) *spec.Request {
	r := &spec.Request{
		Command:   []string{"python3", "-c", "print(6*7)"},
		TimeoutMS: 30000, GraceMS: 2000,
		Resources: spec.Resources{
			MemoryBytes: 256 << 20, CPUShares: 1024, MaxOutputBytes: 1 << 20,
			OutputPolicy: spec.OutputTruncate, MaxPids: 100, DiskBytes: 64 << 20,
			Rlimits: map[string]spec.Rlimit{
				"core": {}, "nofile": {Soft: 1024, Hard: 1024},
				"nproc": {Soft: 100, Hard: 100}, "fsize": {Soft: 64 << 20, Hard: 64 << 20},
			},
		},
		Isolation: spec.Isolation{
			Backend: spec.BackendNamespace, WorkingDirectory: "/workspace", User: "1000:1000",
			Hostname: "capsule", Seccomp: spec.Seccomp{Name: "default"}, Init: true,
		},
	}
	for _, c := range change {
		c(r)
	}
	return r
}

// rootHost is a merged-usr host on which capsule runs as root.
func rootHost(change ...func(*Host)) Host {
	h := Host{
		ExecutionID: "0b3c7a52-8a55-4b1e-9a57-2f6c0d6f9d11",
		SlotBase:    0x70010000,
		CgroupsPath: "/capsule/0b3c7a52-8a55-4b1e-9a57-2f6c0d6f9d11",
		System: []Entry{
			{Path: "/usr"}, {Path: "/bin", Kind: Symlink, Target: "usr/bin"}, {Path: "/sbin", Kind: Symlink, Target: "usr/sbin"},
			{Path: "/lib", Kind: Symlink, Target: "usr/lib"}, {Path: "/lib64", Kind: Symlink, Target: "usr/lib64"},
		},
		Etc: []Entry{
			{Path: "/etc/ld.so.cache", Kind: RegularFile}, {Path: "/etc/ssl/certs"},
			{Path: "/etc/ssl/openssl.cnf", Kind: RegularFile}, {Path: "/etc/alternatives"},
		},
		ResolvConf:    "nameserver 192.0.2.53\n",
		TimeNamespace: true, CgroupNamespace: true,
		HostMemory: 8 << 30, HostCPUs: 4,
	}
	for _, c := range change {
		c(&h)
	}
	return h
}

func rootlessHost(change ...func(*Host)) Host {
	return rootHost(append([]func(*Host){func(h *Host) {
		h.Rootless, h.UID, h.GID, h.SlotBase, h.CgroupsPath = true, 1001, 1002, 0, ""
	}}, change...)...)
}

// strictFilter is the shape of a filter, not a useful one.
func strictFilter() *specs.LinuxSeccomp {
	eperm := uint(1)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &eperm,
		Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "write", "exit_group"}, Action: specs.ActAllow},
			{Names: []string{"ioctl"}, Action: specs.ActKillProcess, Args: []specs.LinuxSeccompArg{
				{Index: 1, Value: 0xffffffff, ValueTwo: 0x5412, Op: specs.OpMaskedEqual}}},
		},
	}
}

// someBinds asks for one bind of each kind.
func someBinds(r *spec.Request) {
	r.Isolation.ReadonlyPaths = []string{"/srv/data"}
	r.Isolation.WritablePaths = []string{"/home/u/out"}
	r.Isolation.BindMounts = []spec.BindMount{
		{Source: "/home/u/project", Destination: "/workspace", Readonly: false},
		{Source: "/home/u/etc/hosts", Destination: "/etc/hosts", Readonly: true},
		{Source: "/home/u/lib", Destination: "/lib/extra", Readonly: true},
	}
}

// resolved is what package host makes of someBinds.
func resolved(idmap bool) func(*Host) {
	return func(h *Host) {
		h.Binds = []Bind{
			{Field: "/isolation/readonly_paths/0", Source: "/mnt/disk/data", Destination: "/srv/data", Readonly: true},
			{Field: "/isolation/writable_paths/0", Source: "/home/u/out", Destination: "/home/u/out", IDMap: idmap, OwnerUID: 1001, OwnerGID: 1002},
			{Field: "/isolation/bind_mounts/0", Source: "/home/u/project", Destination: "/workspace", IDMap: idmap, OwnerUID: 1001, OwnerGID: 1002},
			{Field: "/isolation/bind_mounts/1", Source: "/home/u/etc/hosts", Destination: "/etc/hosts", Kind: RegularFile, Readonly: true, IDMap: idmap},
			{Field: "/isolation/bind_mounts/2", Source: "/home/u/lib", Destination: "/lib/extra", Readonly: true},
		}
	}
}

func someRootfs(r *spec.Request) { root := "/srv/images/alpine"; r.Isolation.Rootfs = &root }

func alpine(h *Host) {
	h.System, h.Etc = nil, nil
	h.Rootfs, h.RootfsVarTmp, h.RootfsIDMap = "/srv/images/alpine", true, true
	h.RootfsEntries = []Entry{
		{Path: "/.built", Kind: RegularFile}, {Path: "/bin"}, {Path: "/etc"}, {Path: "/home"}, {Path: "/lib"},
		{Path: "/lib64", Kind: Symlink, Target: "lib"}, {Path: "/usr"}, {Path: "/var"},
	}
}

// findMount gives the mount at a destination, or nil.
func findMount(s *specs.Spec, dest string) *specs.Mount {
	for i := range s.Mounts {
		if s.Mounts[i].Destination == dest {
			return &s.Mounts[i]
		}
	}
	return nil
}

// option gives the value of a "key=value" mount option.
func option(m *specs.Mount, key string) string {
	for _, o := range m.Options {
		if k, v, ok := strings.Cut(o, "="); ok && k == key {
			return v
		}
	}
	return ""
}
