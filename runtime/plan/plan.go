package plan

// Plan is a compiled launch. It holds no descriptor and no address, so it can
// be printed, compared and sent.
type Plan struct {
	// Clone are the namespaces that the first process is born into.
	Clone uint64
	// UIDMap and GIDMap are the lines of /proc/PID/uid_map and gid_map, written
	// by the launcher. Empty: no user namespace is made.
	UIDMap, GIDMap []IDMap
	// DenySetgroups is set when the group map is written without privilege.
	DenySetgroups bool
	// Tasks is the number of cgroup v1 tasks files that the launcher donates in
	// RegTasks0 and following.
	Tasks int
	// Sources are detached mounts that the launcher makes before the clone,
	// with its own privilege. Empty when rootless: the steps do it then.
	Sources []Source
	// Before is walked by a process that stays in the launcher's pid namespace. It makes
	// the first process of the sandbox, where the pid namespace is that it entered or made,
	// and ends. Nil: the launcher makes that process itself.
	Before []Step
	// Setup is walked by the first process of the sandbox.
	Setup []Step
	// Payload is walked by the process that becomes the command. Without Init it
	// follows Setup in the same process. Like Setup it depends on the sandbox and
	// not on what runs in it: see SameSandbox.
	Payload []Step
	// Command follows Payload in the same process; its last steps are execve.
	Command []Step
	// Init is walked by process 1 after the command has started. Nil: the
	// command itself is process 1.
	Init []Step
	// HasInit tells that process 1 is our reaping init.
	HasInit bool
	// Disks are the writable tmpfs by their paths inside, at most MaxDisks. Process
	// 1 looks when the command ends which of them are full.
	Disks []string
	// Walls are the walls that the plan builds. All of its steps having
	// succeeded is the kernel's confirmation of each.
	Walls []string
	// Partial are those of them of which this kernel has not everything.
	Partial []string
	// Copies are the tmpfs that begin with what they cover, in the order in which the
	// sandbox stops for the launcher to copy it: each time for one directory, then for the
	// other.
	Copies []string
	// Listens: a filter has notifications, and the sandbox stops when it is loaded to hand
	// their listener over.
	Listens bool
	// Procfs is the plan of a process that gives the launcher the context of a procfs for
	// RegProcFS. Nil: none is needed.
	Procfs *Plan
	// BornLast: the process before the first stops for the launcher too, and the first one
	// comes when all is built.
	BornLast bool
	// Joins are existing namespaces that the command gets, in place of new ones.
	Joins []Join
	// Rights are what the launcher puts into the first register of each pair
	// from RegRule0 on, at most MaxRights.
	Rights []uint64
}

// MaxDisks bounds Plan.Disks: two bits of a report's word are for each.
const MaxDisks = 16

// Join is a namespace that exists. The launcher opens it and checks that it is of
// the kind, and is itself in it while it clones, unless there is a register: then a
// step enters it.
type Join struct {
	Kind  uint64 // CLONE_NEW*
	Path  string // on the host
	Reg   Reg
	Field string
}

// IDMap is one line of a uid_map or gid_map.
type IDMap struct {
	Inside, Outside, Size uint32
}

// Source is a detached copy of a host mount, made by open_tree(2).
type Source struct {
	Reg Reg
	// Path is canonical: no component may be a symlink when it is opened.
	Path      string
	Recursive bool
	// Set and Clear are mount_setattr attributes, Propagation its propagation.
	Set, Clear, Propagation uint64
	// UIDMap and GIDMap make it an idmapped mount when not empty.
	UIDMap, GIDMap []IDMap
	Field          string
}

// Kind is what a path is on the host.
type Kind uint8

// The kinds.
const (
	KindMissing Kind = iota
	KindFile         // anything that is not a directory
	KindDir
)

// Facts are what the plan needs to know of the host. They are probed by the
// caller; Compile only reads them.
type Facts struct {
	// Rootless: the launcher has no privilege outside its user namespace.
	Rootless bool
	// BundleDir is the absolute directory of the bundle.
	BundleDir string
	// Kinds tells what each bind source of the configuration is on the host,
	// by path, and what each masked and read-only path below /proc is.
	Kinds map[string]Kind
	// Scratch is the memory to make the plan of a container in. Nil: new memory.
	Scratch *Scratch
	// Tasks is the number of cgroup v1 tasks files to join; 0 on v2.
	Tasks int
	// Filter is the compiled program of linux.seccomp: struct sock_filter
	// entries, native endian. Nil when the configuration has none.
	Filter []byte
	// Listener are the flags with which the filter is loaded so that its
	// notifications have a listener: SECCOMP_FILTER_FLAG_NEW_LISTENER and others.
	// 0: none. It needs an init, which hands the listener to the launcher.
	Listener uint
	// Fallback is loaded, without flags, where the kernel refuses Filter with a
	// listener (EBUSY: another filter of the process has one). Nil: the launch
	// fails then.
	Fallback []byte
	// FilterFirst loads the filter at the end of Plan.Payload instead of right
	// before execve. The filter must permit every step of Plan.Command.
	FilterFirst bool
	// NoStdin makes the command take /dev/null of the sandbox as its descriptor 0,
	// in place of what the launcher donated before it was known what runs.
	NoStdin bool
	// Landlock is the version of Landlock's ABI in this kernel. Below
	// LandlockLeast, and 0 where there is none, the plan goes without.
	Landlock int
	// Skeleton is the decoded AnnotationSkeleton, for a caller that made it;
	// decoding it again costs 0.2 ms in a fresh process. Nil: it is decoded.
	Skeleton *Skeleton
	// NoInit makes the command process 1.
	NoInit bool
	// RootUIDMap and RootGIDMap, when not empty, make the root an idmapped mount: ids
	// on disk become those of the host. Only with a root on disk, and not rootless.
	RootUIDMap, RootGIDMap []IDMap
	// Hierarchies are the cgroup v1 hierarchies of the host, which a mount of type
	// cgroup shows. Empty: it shows v2.
	Hierarchies []Hierarchy
	// LastCap is the highest capability of the kernel. 0: 40.
	LastCap int
	// Container is what a container of another orchestrator has besides.
	Container ContainerFacts
}

// Hierarchy is one cgroup v1 hierarchy.
type Hierarchy struct {
	// Name is that of its directory below /sys/fs/cgroup.
	Name string
	// Options are its mount options that say of which controllers it is.
	Options string
	// Dir is the container's own directory in it, for a container without a cgroup
	// namespace. Of one without a name, which is that of v2, Container knows nothing else.
	Dir string
}
