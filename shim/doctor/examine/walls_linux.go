package examine

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim"
	"github.com/capsule-run/capsule/shim/doctor"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// everything asks for each limit and takes what there is.
const everything = `{"command":["true"],"timeout_ms":20000,"resources":{"cpu_quota":0.5,"cpu_time_ms":10000},
"isolation":{"allow_degraded":["memory","pids","cpu_shares","cpu_quota","cpu_time"]}}`

// cloneWalls are the namespaces that the first process is born into.
var cloneWalls = []struct {
	wall string
	flag uint64
}{
	{spec.WallUserNamespace, 0}, {spec.WallMountNamespace, plan.CloneNewNS}, {spec.WallPIDNamespace, plan.CloneNewPID},
	{spec.WallIPCNamespace, plan.CloneNewIPC}, {spec.WallUTSNamespace, plan.CloneNewUTS},
	{spec.WallNetworkNamespace, plan.CloneNewNet}, {spec.WallTimeNamespace, plan.CloneNewTime},
}

// await is a program that waits for the id maps, which the launcher writes.
var await = []plan.Step{{Op: plan.OpRead, Expect: 1, Field: "linux.uidMappings", Path: "id maps", Args: []plan.Arg{
	{Kind: plan.ArgReg, N: int64(plan.RegSync)}, {Kind: plan.ArgBytes, S: "\x00"}, {Kind: plan.ArgImm, N: 1}}}}

// namespaces clones a process into a user namespace and one other at a time:
// a sandbox takes them all at once, and the kernel does not say which one it
// refuses. It notes the walls that are not to be had.
func (x *examiner) namespaces() {
	r, err := spec.DecodeRequest([]byte(everything))
	if err != nil {
		return // sandbox reports it
	}
	facts, err := host.Probe(r, host.Options{})
	if err != nil {
		x.failed[spec.WallUserNamespace] = fault.From(err, fault.Unsupported)
		return
	}
	x.report.Rootless = facts.Host.Rootless
	maps := []plan.IDMap{{Inside: 0, Outside: 0x70000000, Size: 65536}}
	gids := maps
	if facts.Host.Rootless {
		maps = []plan.IDMap{{Inside: 1000, Outside: facts.Host.UID, Size: 1}}
		gids = []plan.IDMap{{Inside: 1000, Outside: facts.Host.GID, Size: 1}}
	}
	for _, w := range cloneWalls {
		if w.wall == spec.WallTimeNamespace && !facts.Host.TimeNamespace {
			continue
		}
		p := &plan.Plan{Setup: await, Clone: plan.CloneNewUser | w.flag, UIDMap: maps, GIDMap: gids, DenySetgroups: facts.Host.Rootless}
		if err := cloneOnly(p); err != nil {
			x.failed[w.wall] = fault.From(err, fault.Namespace)
			if w.flag == 0 {
				return // the others need it
			}
		}
	}
}

// cloneOnly makes the namespaces of p and drops them.
func cloneOnly(p *plan.Plan) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fault.Wrap(fault.IO, "open", err)
	}
	defer null.Close()
	fd := int(null.Fd())
	ready, err := launch.Prepare(p, launch.Options{Stdin: fd, Stdout: fd, Stderr: fd, CgroupFD: -1})
	if err != nil {
		return err
	}
	sb, err := ready.Start()
	if err != nil {
		return err
	}
	sb.Abandon()
	return nil
}

// try makes one trial with what is left out so far.
func (x *examiner) try(document string) *shim.Outcome {
	refused := func(err error) *shim.Outcome {
		return &shim.Outcome{Fault: err, Response: &spec.Response{Error: spec.ErrorFrom(err)}}
	}
	r, err := spec.DecodeRequest([]byte(document))
	if err != nil {
		return refused(err)
	}
	x.trials++
	// Shaped like every id: a sweep can take away what a killed doctor leaves.
	id := fmt.Sprintf("d0c70000-0000-4000-8%03x-%012x", x.trials&0xfff, uint64(time.Now().UnixNano())&0xffffffffffff)
	boot := shimapi.Bootstrap{Version: shimapi.BootstrapVersion, ExecutionID: id, StateDir: x.state, SeccompHelper: x.opts.SeccompHelper}
	dir := string(x.state.Execution(boot.ExecutionID))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return refused(fault.Wrap(fault.IO, "make execution directory", err))
	}
	defer os.RemoveAll(dir)
	f, err := os.Open(dir)
	if err != nil {
		return refused(fault.Wrap(fault.IO, "open execution directory", err))
	}
	defer f.Close()
	if err := unix.Dup3(int(f.Fd()), shimapi.LockFD, unix.O_CLOEXEC); err != nil {
		return refused(fault.Wrap(fault.SystemCall, "dup3", err))
	}
	out := shim.Try(boot, shim.Trial{Request: r, Without: slices.Clone(x.without)})
	if out.Left != nil {
		x.report.Left += out.Left.Error() + "\n"
	}
	return out
}

// sandbox makes the whole of a sandbox and, as long as a wall is in the way that
// can be left out, another one without it.
func (x *examiner) sandbox() {
	for _, wall := range cloneFailures(x.failed) {
		if !shim.Removable(wall) {
			x.walls(nil)
			x.limits(nil)
			return
		}
		x.without = append(x.without, wall)
	}
	var out *shim.Outcome
	for {
		out = x.try(everything)
		if out.Fault == nil {
			break
		}
		f := fault.From(out.Fault, fault.SystemCall)
		wall := wallOf(f)
		if slices.Contains(x.without, wall) || f.Code == fault.CommandNotFound {
			wall = ""
		}
		x.failed[wall] = f
		if wall == "" || !shim.Removable(wall) {
			out = nil
			break
		}
		x.without = append(x.without, wall)
	}
	x.walls(out)
	x.limits(out)
}

// cloneFailures are the names in the order of cloneWalls.
func cloneFailures(failed map[string]*fault.Fault) []string {
	var names []string
	for _, w := range cloneWalls {
		if failed[w.wall] != nil {
			names = append(names, w.wall)
		}
	}
	return names
}

// walls puts a line for each wall into the report. A nil outcome: no sandbox
// could be built, whatever was left out.
func (x *examiner) walls(out *shim.Outcome) {
	if f := x.failed[""]; f != nil {
		x.bad(doctor.KindStep, "sandbox", doctor.Blocked, f)
	} else if f := x.failed[shim.WithoutLimits]; f != nil {
		x.bad(doctor.KindStep, shim.WithoutLimits, doctor.Blocked, f)
	} else if len(x.failed) == 0 {
		x.add(doctor.Check{Kind: doctor.KindStep, Name: "sandbox", State: doctor.Works, Detail: "a command ran inside every wall"})
	}
	for _, name := range spec.WallNames() {
		f := x.failed[name]
		switch {
		case f != nil:
			x.bad(doctor.KindWall, name, doctor.Blocked, f)
		case name == spec.WallIDMap:
			// Tried with paths.
		case out != nil && slices.Contains(out.Built, name):
			c := doctor.Check{Kind: doctor.KindWall, Name: name, State: doctor.Works}
			if e := out.Response.Enforcement; e != nil && e.Walls[name] == spec.Degraded {
				c.Detail = "in part: this kernel does not know all of it"
			}
			x.add(c)
		case out == nil && x.cloned(name):
			x.add(doctor.Check{Kind: doctor.KindWall, Name: name, State: doctor.Works, Detail: "tried alone"})
		case out == nil:
			x.add(doctor.Check{Kind: doctor.KindWall, Name: name, State: doctor.Blocked, Detail: "not reached: the set-up ends before it"})
		default:
			x.bad(doctor.KindWall, name, doctor.Degraded, fault.New(fault.Unsupported, "build wall", "this kernel has no "+name))
		}
	}
}

// cloned tells whether the namespace was made on its own.
func (x *examiner) cloned(name string) bool {
	if x.failed[spec.WallUserNamespace] != nil {
		return false
	}
	for _, w := range cloneWalls {
		if w.wall == name {
			return true
		}
	}
	return false
}

// wallOf tells which wall a failed set-up was building. Empty: none of them.
func wallOf(f *fault.Fault) string {
	switch f.Code {
	case fault.Seccomp:
		return spec.WallSeccomp
	case fault.Network:
		return spec.WallNetworkNamespace
	case fault.Cgroup, fault.LimitUnavailable:
		if f.Field == "process.rlimits" {
			return spec.WallRlimits
		}
		return shim.WithoutLimits
	}
	if strings.HasPrefix(f.Op, "landlock_") {
		return spec.WallLandlock
	}
	switch f.Field {
	case "linux.namespaces":
		return spec.WallCgroupNamespace // the one that a step enters
	case "linux.uidMappings":
		return spec.WallUserNamespace
	case "linux.maskedPaths", "linux.readonlyPaths":
		return spec.WallProcMasking
	case "hostname", "domainname":
		return spec.WallUTSNamespace
	case "process.capabilities":
		return spec.WallCapabilities
	case "process.noNewPrivileges":
		return spec.WallNoNewPrivs
	}
	switch {
	case f.Path == "/proc":
		return spec.WallProcMasking
	case f.Code == fault.Filesystem:
		return spec.WallRootfs
	case f.Code == fault.IDMapping, f.Code == fault.Namespace:
		return spec.WallUserNamespace
	}
	return ""
}
