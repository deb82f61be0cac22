package bundle

import specs "github.com/opencontainers/runtime-spec/specs-go"

// IDRange is the number of consecutive host ids that one execution owns when
// capsule runs as root: ids 0..65535 of the sandbox.
const IDRange = 65536

// Host is what Build must know of the host and of this execution's place on
// it. It is plain data: package host fills it from the kernel, tests by hand.
type Host struct {
	// ExecutionID is the id of the execution. Empty: the annotation is left out.
	ExecutionID string
	// Rootless says that only the caller's own ids can be mapped.
	Rootless bool
	// UID and GID are the caller's ids on the host. Used only when Rootless.
	UID, GID uint32
	// SlotBase is the first of the IDRange host ids of this execution. Used
	// only when not Rootless; it must not be zero then.
	SlotBase uint32
	// CgroupsPath is linux.cgroupsPath, relative to the cgroup mount points.
	// Empty: left out.
	CgroupsPath string
	// System are the host's top-level system directories as found: bound
	// where they are directories, re-created where they are symbolic links.
	// Not used when Rootfs is set.
	System []Entry
	// Etc are the files, directories and symbolic links below /etc that are
	// shown read-only beside the synthesised files. Not used when Rootfs is set.
	Etc []Entry
	// ResolvConf is the content of the host's resolver configuration. It is
	// used only with isolation.network; otherwise the file is empty.
	ResolvConf string
	// TimeNamespace and CgroupNamespace say that the kernel has these
	// namespaces; the sandbox then gets its own.
	TimeNamespace, CgroupNamespace bool
	// Binds are the request's readonly_paths, writable_paths and bind_mounts,
	// in this order, with their sources resolved: exactly one for each.
	Binds []Bind
	// Rootfs is the resolved isolation.rootfs. Empty: the host's system
	// directories are used.
	Rootfs string
	// RootfsEntries are the top-level entries of Rootfs that are shown, with
	// their paths inside the sandbox ("/usr").
	RootfsEntries []Entry
	// RootfsVarTmp says that var/tmp is a real directory below Rootfs, so that
	// a tmpfs can be mounted on it.
	RootfsVarTmp bool
	// RootfsIDMap says that the file system of Rootfs supports idmapped mounts.
	// Ids 0..65535 on disk then appear as the same ids inside.
	RootfsIDMap bool
	// Seccomp is the resolved filter. Nil: unconfined.
	Seccomp *specs.LinuxSeccomp
	// HostMemory, in bytes, and HostCPUs, in cores, bound what a request may
	// ask for. Zero: not known, not checked.
	HostMemory int64
	HostCPUs   int
	// Disks are the block devices that resources.io bounds. Not used without it.
	Disks []Device
}

// Device is a block device by its numbers.
type Device struct {
	Major, Minor int64
}

// Kind is the type of a host directory entry.
type Kind uint8

// The kinds. Others (devices, sockets, FIFOs) never reach a Host.
const (
	Directory Kind = iota
	RegularFile
	Symlink
)

// Entry is one entry of the host that is shown in the sandbox.
type Entry struct {
	// Path is absolute and clean; the same on the host (below Rootfs for
	// RootfsEntries) and inside.
	Path string
	Kind Kind
	// Target is the content of a symbolic link. Empty for other kinds.
	Target string
}

// Bind is one host path of the request, resolved.
type Bind struct {
	// Field is the JSON pointer of the request field that asked for it.
	Field string
	// Source is the canonical host path: absolute, without symbolic links.
	Source string
	// Destination is the absolute path inside the sandbox, as requested.
	Destination string
	// Kind is Directory or RegularFile.
	Kind Kind
	// Readonly makes the mount recursively read-only.
	Readonly bool
	// IDMap presents files of OwnerUID and OwnerGID as the payload's own. Only
	// when not Rootless, and only where the file system supports it.
	IDMap bool
	// OwnerUID and OwnerGID own Source on disk.
	OwnerUID, OwnerGID uint32
}
