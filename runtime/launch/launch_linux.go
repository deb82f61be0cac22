package launch

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/runtime/slack"
	"github.com/capsule-run/capsule/spec/fault"
)

// Options are what a launch needs besides its plan. Every descriptor stays the
// caller's: it is neither closed nor changed in owner or mode.
type Options struct {
	// Stdin, Stdout and Stderr become descriptors 0, 1 and 2 of the payload.
	Stdin, Stdout, Stderr int
	// CgroupFD is a cgroup v2 directory into which the sandbox is born. -1: none.
	CgroupFD int
	// Tasks are cgroup v1 tasks files, open for writing; as many as Plan.Tasks.
	Tasks []int
	// Keep is a descriptor that process 1 holds for as long as it lives, such
	// as the lock of its host ids. Nil: none. Without an init it is not held.
	Keep *os.File
	// Gate is the listening socket at which the plan of a container waits. It goes
	// the way of Keep, which is nil then.
	Gate *os.File
	// Hold builds the sandbox and waits before Plan.Command, which comes later by
	// Sandbox.Release. The plan needs an init.
	Hold bool
	// TimerSlack is that of the sandbox, in nanoseconds. 0: what the calling thread has.
	TimerSlack int
}

// cloneArgs is struct clone_args of clone3(2), Linux 5.7.
//
//lint:ignore U1000 The kernel's layout, of which some fields stay zero.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// cloneArgs are the arguments for a child with the given namespaces on the
// encoder's stack.
func (e *encoder) cloneArgs(flags uint64) *cloneArgs {
	args := &cloneArgs{flags: flags | unix.CLONE_PIDFD, pidfd: uint64(uintptr(unsafe.Pointer(&e.machine.initPidfd))),
		exitSignal: uint64(unix.SIGCHLD), stack: uint64(e.sandboxStack - stackSize), stackSize: stackSize}
	if bareChild {
		keepHeap()
		args.flags |= unix.CLONE_SETTLS
		args.tls = uint64(e.storage)
	}
	return args
}

// Prepared is a plan that is encoded and whose host mounts are made. It is
// used once.
type Prepared struct {
	plan  *plan.Plan
	enc   *encoder
	trees []int
	joins []joined
	opts  Options
	late  *late // nil: the plan is whole
}

// Prepare encodes the plan and makes its detached mounts. It needs root when
// the plan has sources. The result must be started or closed.
func Prepare(p *plan.Plan, o Options) (*Prepared, error) {
	programs := [][]plan.Step{p.Before, p.Setup, p.Payload, p.Init, p.Command}
	if o.Hold {
		programs[len(programs)-1] = holdSteps
	}
	enc, err := newEncoder(p.Disks, programs...)
	if err != nil {
		return nil, err
	}
	m := enc.machine
	m.hasInit = p.HasInit
	for i, path := range p.Disks {
		m.disks[i], m.diskCount = enc.cstring(path), uintptr(i+1)
	}
	if o.Keep != nil {
		m.keep, m.hasKeep = o.Keep.Fd(), true
	}
	if o.Gate != nil {
		m.keep, m.hasKeep = o.Gate.Fd(), true
		m.regs[plan.RegGate] = m.keep
	}
	m.before, m.setup, m.payload, m.init = enc.program(p.Before), enc.program(p.Setup), enc.program(p.Payload), enc.program(p.Init)
	pr := &Prepared{plan: p, enc: enc, opts: o}
	if o.Hold {
		if pr.late, err = newLate(enc); err != nil {
			pr.Close()
			return nil, err
		}
		m.hold, m.command = enc.program(holdSteps), pr.late.program
	} else {
		m.own = enc.program(p.Command)
		m.command = &m.own
	}
	m.regs[plan.RegStdin], m.regs[plan.RegStdout], m.regs[plan.RegStderr] = uintptr(o.Stdin), uintptr(o.Stdout), uintptr(o.Stderr)
	if len(o.Tasks) != p.Tasks {
		pr.Close()
		return nil, fault.New(fault.Cgroup, "prepare launch", "the plan joins "+strconv.Itoa(p.Tasks)+" cgroups, "+strconv.Itoa(len(o.Tasks))+" are given")
	}
	for i, fd := range o.Tasks {
		m.regs[plan.RegTasks0+plan.Reg(i)] = uintptr(fd)
	}
	for i, rights := range p.Rights {
		m.regs[plan.RegRule0+plan.Reg(2*i)] = uintptr(rights)
	}
	if err := pr.openJoins(); err != nil {
		pr.Close()
		return nil, err
	}
	if p.Procfs != nil {
		fd, err := contextOf(p.Procfs, o)
		if err != nil {
			pr.Close()
			return nil, err
		}
		pr.trees = append(pr.trees, fd)
		m.regs[plan.RegProcFS] = uintptr(fd)
	}
	var maps idMaps
	defer maps.close()
	for i := range p.Sources {
		fd, err := openSource(&p.Sources[i], &maps)
		if err != nil {
			pr.Close()
			return nil, err
		}
		pr.trees = append(pr.trees, fd)
		m.regs[p.Sources[i].Reg] = uintptr(fd)
	}
	return pr, nil
}

// contextOf runs the plan of a process that opens a procfs and gives its context. The caller
// closes it.
func contextOf(p *plan.Plan, o Options) (int, error) {
	pr, err := Prepare(p, Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, CgroupFD: o.CgroupFD, Tasks: o.Tasks})
	if err != nil {
		return -1, err
	}
	sb, err := pr.Start()
	if err != nil {
		return -1, err
	}
	defer sb.Abandon()
	if err := sb.Born(func(int) error { return nil }); err != nil {
		return -1, err
	}
	fd, err := sb.Descriptor()
	if err != nil {
		return -1, err
	}
	if err := isProcfs(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// isProcfs refuses what is not the context of a procfs. The process that gave it is seen in the
// pid namespace of others, and who has CAP_SYS_PTRACE there could give another in its place: of an
// overlay, with directories of the host, which root would then mount. The kernel tells the
// kind when it refuses an option.
func isProcfs(fd int) error {
	fail := func(err error) error { return fault.Wrap(fault.Namespace, "check the context of procfs", err) }
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || name != "anon_inode:[fscontext]" {
		return fail(errors.Join(err, errors.New("is none of a file system")))
	}
	const option = "of-which-kind"
	if err := unix.FsconfigSetFlag(fd, option); err != unix.EINVAL {
		return fail(errors.Join(err, errors.New("takes any option")))
	}
	last, buf := "", make([]byte, 512)
	for {
		n, err := unix.Read(fd, buf) // one message, the oldest
		if err == unix.ENODATA {
			break
		}
		if err != nil {
			return fail(err)
		}
		last = string(buf[:n])
	}
	if strings.TrimSpace(last) != "e proc: Unknown parameter '"+option+"'" {
		return fail(errors.New("is one of another file system: " + strconv.Quote(last)))
	}
	return nil
}

// Close gives up a launch that was not started. Safe after Start.
func (pr *Prepared) Close() {
	for _, fd := range pr.trees {
		unix.Close(fd) // detached trees vanish with their descriptor
	}
	for _, j := range pr.joins {
		unix.Close(j.fd)
	}
	pr.trees, pr.joins = nil, nil
	pr.enc.close()
	pr.late.close()
	pr.late = nil
}

// Start clones the sandbox and lets it run. It returns once the id maps are
// written; the outcome of the set-up comes with Sandbox.Started.
func (pr *Prepared) Start() (*Sandbox, error) {
	defer pr.Close()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "socketpair", err)
	}
	m := pr.enc.machine
	m.peer, m.status = uintptr(ends[0]), uintptr(ends[1])
	m.regs[plan.RegSync] = uintptr(ends[1])
	low, high := m.status, m.status
	if m.hasKeep {
		low, high = min(low, m.keep), max(high, m.keep)
	}
	m.regs[plan.RegBelow], m.regs[plan.RegBetweenFirst], m.regs[plan.RegBetweenLast], m.regs[plan.RegAbove] = low-1, low+1, high-1, high+1
	m.iov.Base, m.iov.Len = (*byte)(unsafe.Pointer(&m.report)), uint64(reportSize)
	m.msg.Iov, m.msg.Iovlen = &m.iov, 1
	m.msg.Control = (*byte)(unsafe.Pointer(&m.control))
	m.msg.SetControllen(unix.CmsgSpace(4))
	m.control.Level, m.control.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	m.control.SetLen(unix.CmsgLen(4))

	args := pr.enc.cloneArgs(pr.plan.Clone)
	if pr.opts.CgroupFD >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(pr.opts.CgroupFD)
	}
	pid, err := pr.clone(args)
	unix.Close(ends[1])
	if err != nil {
		unix.Close(ends[0])
		return nil, err
	}
	sb := &Sandbox{Pid: int(pid), plan: pr.plan, pidfd: int(m.initPidfd), payload: -1, status: ends[0], late: pr.late, unborn: len(pr.plan.Before) > 0}
	pr.late = nil // it is the sandbox's from here on
	if err := pr.mapIDs(sb); err != nil {
		sb.Abandon()
		return nil, err
	}
	return sb, nil
}

// clone makes process 1, in the namespaces that exist already where there are any.
func (pr *Prepared) clone(args *cloneArgs) (pid uintptr, err error) {
	clone := func() error {
		var errno syscall.Errno
		fork := func() { pid, errno = forkSandbox(args, pr.enc.machine) }
		if pr.opts.TimerSlack != 0 {
			slack.During(pr.opts.TimerSlack, fork)
		} else {
			fork()
		}
		if errno != 0 {
			return cloneFault(errno, pr.opts.CgroupFD >= 0)
		}
		return nil
	}
	if len(pr.joins) == 0 {
		err = clone()
	} else {
		err = pr.within(clone)
	}
	return pid, err
}

// mapIDs writes the id maps and lets the child go on.
func (pr *Prepared) mapIDs(sb *Sandbox) error {
	dir := "/proc/" + strconv.Itoa(sb.Pid)
	if err := writeMaps(dir, pr.plan.UIDMap, pr.plan.GIDMap, pr.plan.DenySetgroups); err != nil {
		return err
	}
	if _, err := unix.Write(sb.status, []byte{1}); err != nil {
		return fault.Wrap(fault.Namespace, "release the sandbox", err)
	}
	return nil
}

func writeMaps(dir string, uid, gid []plan.IDMap, denySetgroups bool) error {
	type file struct{ name, text string }
	files := []file{{"uid_map", mapText(uid)}, {"gid_map", mapText(gid)}}
	if denySetgroups {
		// user_namespaces(7): an unprivileged gid_map needs setgroups denied first.
		files = []file{files[0], {"setgroups", "deny"}, files[1]}
	}
	for _, f := range files {
		if f.text == "" {
			continue
		}
		fd, err := unix.Open(dir+"/"+f.name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(f.text))
			unix.Close(fd)
		}
		if err != nil {
			return fault.Wrap(fault.IDMapping, "write "+f.name, err).WithField("linux.uidMappings")
		}
	}
	return nil
}

func mapText(maps []plan.IDMap) string {
	var b strings.Builder
	for _, m := range maps {
		for _, n := range []uint32{m.Inside, m.Outside, m.Size} {
			b.WriteString(strconv.FormatUint(uint64(n), 10))
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func cloneFault(errno syscall.Errno, cgroup bool) error {
	f := fault.Wrap(fault.Namespace, "clone3", errno)
	switch errno {
	case unix.EPERM:
		if os.Geteuid() == 0 {
			return f.WithHint("The kernel makes no user namespace for a process in a chroot, nor where a container's filter forbids it: use pivot_root, or give the container the right.")
		}
		return f.WithHint("This user may not make user namespaces: capsulectl doctor names the sysctl or the profile that forbids it and the commands that mend it; or run as root.")
	case unix.ENOSPC, unix.EUSERS:
		return f.WithHint("A limit of /proc/sys/user/max_*_namespaces is reached.")
	case unix.ENOSYS:
		return f.WithHint("The kernel is older than Linux 5.12, or a filter around capsule (of a container, or SystemCallFilter= of a unit) forbids namespaces; capsulectl doctor tells which.")
	case unix.EACCES, unix.EBUSY, unix.EOPNOTSUPP, unix.ENODEV:
		if errno == unix.EACCES && os.Geteuid() != 0 && appArmorRestricts() {
			return f.WithHint("AppArmor keeps this user from making user namespaces (kernel.apparmor_restrict_unprivileged_userns): " +
				"capsulectl doctor --apparmor-profile prints the profile that allows it, and capsulectl doctor how to load it.")
		}
		if cgroup {
			f.Code = fault.Cgroup
		}
	}
	return f
}

// appArmorRestricts reads the sysctl of Ubuntu 23.10 and later. It is asked
// only after the kernel refused something.
func appArmorRestricts() bool {
	fd, err := unix.Open("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var value [1]byte
	n, err := unix.Read(fd, value[:])
	return err == nil && n == 1 && value[0] == '1'
}

// Idle is a process that does nothing, for what needs a process and no more.
type Idle struct {
	Pid int
	sb  *Sandbox
	enc *encoder
}

// NewIdle makes a process that does nothing until Close, or until this process ends.
func NewIdle() (*Idle, error) { return newIdle(0) }

func newIdle(flags uint64) (*Idle, error) {
	// Only the clone matters: the child's first step, reading the status
	// socket, ends it when we close our end.
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "socketpair", err)
	}
	enc, err := newEncoder(nil, waitOnly)
	if err != nil {
		unix.Close(ends[0])
		unix.Close(ends[1])
		return nil, err
	}
	m := enc.machine
	m.peer, m.status = uintptr(ends[0]), uintptr(ends[1])
	m.setup = enc.program(waitOnly)
	m.regs[plan.RegSync] = uintptr(ends[1])
	pid, errno := forkSandbox(enc.cloneArgs(flags), m)
	unix.Close(ends[1])
	if errno != 0 {
		unix.Close(ends[0])
		enc.close()
		return nil, cloneFault(errno, false)
	}
	sb := &Sandbox{Pid: int(pid), pidfd: int(m.initPidfd), payload: -1, status: ends[0]}
	return &Idle{int(pid), sb, enc}, nil
}

// Close ends and reaps it.
func (i *Idle) Close() {
	i.sb.Abandon()
	i.enc.close()
}

// waitOnly is a program that blocks until the launcher goes away.
var waitOnly = []plan.Step{{Op: plan.OpRead, Expect: 1, Args: []plan.Arg{
	{Kind: plan.ArgReg, N: int64(plan.RegSync)}, {Kind: plan.ArgBytes, S: "\x00"}, {Kind: plan.ArgImm, N: 1}}}}
