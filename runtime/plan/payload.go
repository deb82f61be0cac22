package plan

import (
	"encoding/binary"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// maxCandidates bounds the search of PATH.
const maxCandidates = 64

// payload is what the process does that becomes the command, as far as the
// sandbox alone decides it: a process that has come so far can wait for its
// command. The order matters: ids first, then what they decide (directory), then
// capabilities. The directory belongs here and not to the command because filters
// do not permit openat2, whose arguments they cannot see.
func (c *compiler) payload() error {
	c.out = &c.plan.Payload
	c.field = "process"
	// A new session: no controlling terminal into which keys could be pushed.
	c.do(OpSetsid, "")
	if c.caps.any() {
		c.field = "process.capabilities"
		c.do(OpPrctl, "", flag(prSetKeepcaps, "PR_SET_KEEPCAPS"), imm(1), imm(0), imm(0), imm(0)) // execve clears it
	}
	c.identity()
	c.directory()
	if c.caps.any() {
		c.take(c.caps)
		c.noNewPrivs()
	} else {
		c.dropAll()
	}
	c.wall("no_new_privs")
	c.restrict()
	if c.facts.FilterFirst {
		c.filter()
	}
	return nil
}

// directory enters the working directory.
func (c *compiler) directory() {
	c.field = "process.cwd"
	cwd := c.spec.Process.Cwd
	// Links are followed, but none of /proc's that stand for an open file: one
	// below a bind or in a given root would lead to a directory that the
	// launcher has open, outside the root (CVE-2024-21626).
	c.into(RegFile, OpOpenat2, cwd, imm(atFDCWD), str(cwd), raw(openHow(resolveNoMagiclinks), "O_PATH, no magic links"), imm(openHowSize))
	c.do(OpFchdir, cwd, reg(RegFile))
	c.closeReg(RegFile)
}

// command is the rest, which depends on the command. A filter that need not permit
// any of this comes last, since it binds our own calls too.
func (c *compiler) command() error {
	c.out = &c.plan.Command
	p := c.spec.Process
	if c.facts.NoStdin { // while there may be more than three descriptors
		c.field = "process"
		c.into(RegFile, OpOpenat, "/dev/null", imm(atFDCWD), str("/dev/null"), flag(oCloexec, "O_RDONLY|O_CLOEXEC"), imm(0))
		c.do(OpDup3, "", reg(RegFile), imm(0), imm(0))
		c.closeReg(RegFile)
	}
	if err := c.rlimits(); err != nil {
		return err
	}
	candidates, err := c.candidates()
	if err != nil {
		return err
	}
	c.field = "process.args"
	for _, file := range candidates {
		c.emit(Step{Op: OpFaccessat, Args: []Arg{imm(atFDCWD), str(file), imm(0), imm(0)}, Mode: Note, Path: file})
	}
	if c.facts.NoInit {
		c.field = "process"
		c.do(OpPrctl, "", flag(prSetPdeathsig, "PR_SET_PDEATHSIG"), flag(sigKill, "SIGKILL"), imm(0), imm(0), imm(0))
		// A launcher that died before that sends no signal any more: EPIPE. One
		// that lives learns that the end of the socket will be execve.
		c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegSync), raw([]byte{1}, "one byte"), imm(1)}, Expect: 1, Path: "launcher"})
	}
	c.field = "process"
	c.do(OpCloseRange, "", imm(3), flag(0xffffffff, "~0"), flag(closeRangeCloexec, "CLOSE_RANGE_CLOEXEC"))
	// The start of the command's wall clock: process 1 learns of execve only when
	// it is scheduled again.
	c.do(OpClockGettime, "", flag(1, "CLOCK_MONOTONIC"), Arg{Kind: ArgClock, Note: "start of the command"})
	if !c.facts.FilterFirst {
		c.filter()
	}
	c.field = "process.args"
	for _, file := range candidates {
		c.emit(Step{Op: OpExecve, Args: []Arg{str(file), vector(p.Args), vector(p.Env)}, Mode: Try, Path: file})
	}
	return nil
}

// filter loads the program of linux.seccomp. With a listener the kernel gives
// a descriptor, which process 1 finds in the table that it shares with this
// process until execve.
func (c *compiler) filter() {
	if len(c.facts.Filter) == 0 {
		return
	}
	c.field = "linux.seccomp"
	load := func(code []byte, flags Arg, mode Mode, to Reg) {
		c.emit(Step{Op: OpSeccomp, Mode: mode, Result: to, Args: []Arg{flag(seccompSetFilter, "SECCOMP_SET_MODE_FILTER"), flags,
			program(code, strconv.Itoa(len(code)/8)+" instructions")}})
	}
	switch {
	case c.facts.Listener == 0:
		load(c.facts.Filter, imm(0), Must, RegNone)
	case c.facts.Fallback == nil:
		load(c.facts.Filter, flag(int64(c.facts.Listener), "NEW_LISTENER"), Must, RegListener)
	default:
		load(c.facts.Filter, flag(int64(c.facts.Listener), "NEW_LISTENER"), Prefer, RegListener)
		load(c.facts.Fallback, imm(0), Must, RegNone)
	}
	c.wall("seccomp")
}

// stdio places the command's descriptors and closes all else that the launcher
// has open, before any path of the request is resolved: /proc/self/fd would
// lead out of the root, as working directory, as command or in PATH
// (CVE-2024-21626). The status socket stays, for reports, and what process 1
// keeps. It happens before the command's process is made, which shares the
// table of descriptors until it executes the command.
func (c *compiler) stdio() error {
	c.field = "process"
	streams := []Reg{RegStdin, RegStdout, RegStderr}
	if c.spec.Process.Terminal {
		streams = []Reg{RegSlave, RegSlave, RegSlave}
	}
	for i, r := range streams {
		c.do(OpDup3, "", reg(r), imm(int64(i)), imm(0))
	}
	// EINVAL: there is none between.
	c.emit(Step{Op: OpCloseRange, Args: []Arg{imm(3 + int64(c.facts.Container.Preserve)), reg(RegBelow), imm(0)}, Mode: Ignore})
	c.emit(Step{Op: OpCloseRange, Args: []Arg{reg(RegBetweenFirst), reg(RegBetweenLast), imm(0)}, Mode: Ignore})
	c.do(OpCloseRange, "", reg(RegAbove), flag(0xffffffff, "~0"), imm(0))
	return nil
}

// identity becomes the user of the command.
func (c *compiler) identity() {
	u := c.spec.Process.User
	c.field = "process.user"
	if !c.facts.Rootless {
		groups := make([]byte, 0, 4*len(u.AdditionalGids))
		for _, g := range u.AdditionalGids {
			groups = binary.LittleEndian.AppendUint32(groups, g)
		}
		if len(groups) > 0 {
			c.do(OpSetgroups, "", imm(int64(len(u.AdditionalGids))), raw(groups, "additionalGids"))
		}
	}
	g, id := int64(u.GID), int64(u.UID)
	c.do(OpSetresgid, "", imm(g), imm(g), imm(g))
	c.do(OpSetresuid, "", imm(id), imm(id), imm(id))
	mask := int64(0o022)
	if u.Umask != nil {
		mask = int64(*u.Umask)
	}
	c.do(OpUmask, "", flag(mask, "0"+strconv.FormatInt(mask, 8)))
}

// resources are the numbers of RLIMIT_* (asm-generic, shared by amd64 and arm64).
var resources = map[string]int64{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
	"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
	"RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

// Rlimit is the number of a limit by its OCI name, "RLIMIT_NOFILE"; not ok
// when there is no such limit.
func Rlimit(name string) (number int, ok bool) {
	n, ok := resources[name]
	return int(n), ok
}

func (c *compiler) rlimits() error { return c.limit(c.spec.Process.Rlimits) }

// limit sets some limits.
func (c *compiler) limit(which []specs.POSIXRlimit) error {
	list := append([]specs.POSIXRlimit(nil), which...)
	sort.Slice(list, func(i, j int) bool { return list[i].Type < list[j].Type })
	c.field = "process.rlimits"
	for _, l := range list {
		n, ok := resources[l.Type]
		if !ok {
			return fault.New(fault.InvalidBundle, "compile plan", "unknown resource limit "+strconv.Quote(l.Type)).WithField("process.rlimits")
		}
		b := binary.LittleEndian.AppendUint64(nil, l.Soft)
		b = binary.LittleEndian.AppendUint64(b, l.Hard)
		c.do(OpPrlimit, l.Type, imm(0), flag(n, l.Type), raw(b, strconv.FormatUint(l.Soft, 10)+":"+strconv.FormatUint(l.Hard, 10)), imm(0))
	}
	if len(list) > 0 {
		c.wall("rlimits")
	}
	return nil
}

// candidates are the files that execvp would try.
func (c *compiler) candidates() ([]string, error) {
	p := c.spec.Process
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}, nil
	}
	search := "/usr/local/bin:/usr/bin:/bin"
	for _, kv := range p.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "." // as execvp(3)
		}
		out = append(out, strings.TrimSuffix(dir, "/")+"/"+name)
	}
	if len(out) > maxCandidates {
		return nil, fault.New(fault.OutOfRange, "compile plan", "PATH has more than 64 directories").WithField("process.env")
	}
	return out, nil
}
