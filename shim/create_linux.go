package shim

import (
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"

	"errors"
	"os"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/denials"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// create does everything that can be done before the sandbox is cloned.
// Whatever it acquires is released by teardown, also when it fails half-way.
func (e *execution) create(req *spec.Request, streamStdin bool) error {
	e.req = req
	if e.spare != nil {
		if e.foreign == nil && req.Isolation.Backend == spec.BackendNamespace {
			if done, err := e.adopt(req, streamStdin); done || err != nil {
				return err
			}
		}
		e.giveUpSpare()
	}
	var t *translation
	var err error
	switch {
	case req.Isolation.Backend == spec.BackendProcess:
		if t, err = e.createBare(req); err != nil {
			return err
		}
	case e.foreign != nil:
		t, err = e.foreign.translate(e.boot)
		e.boundless = boundless(e.foreign.config)
	default:
		t, err = translate(e.boot, req, nil)
	}
	e.slot = t.slot
	e.take(t)
	if err != nil {
		return err
	}
	if e.without != nil {
		t.leaveOut(e.without)
	}
	e.clock.mark("bundle")
	failpoint.Here("shim.create.translated")
	if breach.Of("private_state") {
		_ = os.Chmod(string(e.dir), 0o755) // what is tested is that this is seen
	}
	if err := os.MkdirAll(e.dir.Bundle()+"/"+bundle.RootfsName, 0o700); err != nil {
		return fault.Wrap(fault.IO, "make bundle", err)
	}
	if !t.bare {
		if err := e.control(t.config); err != nil {
			return err
		}
	}
	e.clock.mark("cgroup")
	failpoint.Here("shim.create.cgroup")
	if e.plan, err = t.compile(e.dir.Bundle(), e.tasks()); err != nil {
		return err
	}
	if t.root != "" {
		if err := host.MountPoints(t.config, t.root, host.Kinds(t.config)); err != nil {
			return bundle.Pointed(err)
		}
	}
	e.clock.mark("plan")
	e.describe(t)
	if err := e.openStdio(t, streamStdin); err != nil {
		return err
	}
	failpoint.Here("shim.create.stdio")
	err = e.prepare()
	e.clock.mark("prepare")
	failpoint.Here("shim.create.prepared")
	return err
}

// usualSlack is the timer slack of a sandbox, in nanoseconds: what Linux gives the first
// process. This process may have shimapi.TimerSlack.
const usualSlack = 50_000

// prepare opens what the sandbox is made of.
func (e *execution) prepare() (err error) {
	o := launch.Options{Stdin: e.stdio.payload[0], Stdout: e.stdio.payload[1], Stderr: e.stdio.payload[2], CgroupFD: -1, Keep: e.slot, TimerSlack: usualSlack}
	if e.group != nil {
		o.CgroupFD, o.Tasks = e.group.DirFD(), e.group.TasksFDs()
	}
	e.ready, err = launch.Prepare(e.plan, o)
	return err
}

// take notes what a translation decided.
func (e *execution) take(t *translation) {
	e.warnings, e.facts = t.warnings, factsOf{t.degraded, t.io}
	e.filter, e.watched = t.filter, t.watched
}

func (e *execution) tasks() int { return tasksOf(e.group) }

func tasksOf(g *cgroup.Group) int {
	if g == nil {
		return 0
	}
	return len(g.TasksFDs())
}

// translation is a request on its way to a plan.
type translation struct {
	config   *specs.Spec
	skeleton *plan.Skeleton
	filter   []byte
	object   string            // the filter as OCI linux.seccomp JSON; empty: see config
	foreign  bool              // the filter is the caller's own
	watched  *denials.Observed // nil: no call is watched
	rootless bool
	noInit   bool
	landlock int      // version of its ABI; below plan.LandlockLeast: none
	ids      [2]int   // host ids of the payload; -1: leave stdio as it is
	base     uint32   // first host id of the slot
	slot     *os.File // nil with a spare, which has it
	noStdin  bool     // the command takes /dev/null inside
	profile  string   // name of the filter; empty: it is the caller's own
	warnings []string
	lasting  []string // those of them that every request with the same walls has
	degraded []string
	io       host.IO
	probed   host.Facts
	repeated bool     // but for the command it is that of a spare, see model
	masked   []string // blocked programs, hidden inside

	bare bool // no sandbox: the process backend

	// Of a bundle from outside.
	outside     bool
	root        string // on disk; empty: it comes out of an annotation
	rootMap     []plan.IDMap
	hierarchies []plan.Hierarchy
}

// translate turns a request into an OCI configuration and its filter, for the
// sandbox that is ready, or is made ready, where there is one. A slot of host ids is the caller's to
// close, also in failure.
func translate(boot shimapi.Bootstrap, req *spec.Request, ready *spare) (*translation, error) {
	t := &translation{noInit: !req.Isolation.Init, ids: [2]int{-1, -1}}
	o := host.Options{ExecutionID: boot.ExecutionID, StateDir: string(boot.StateDir), Policy: boot.Policy}
	group := ""
	if ready != nil {
		group, o.IDMap, o.Known = ready.name, &ready.idmap, ready.model.known()
	} else {
		group = cgroupName(boot.StateDir, boot.ExecutionID)
	}
	o.CgroupsPath = "/capsule/capsule-" + group
	facts, err := host.Probe(req, o)
	if err != nil {
		return t, err
	}
	t.rootless, t.warnings, t.degraded, t.io, t.probed = facts.Host.Rootless, facts.Warnings, facts.Degraded, facts.IO, *facts
	strict, err := fitRlimits(req)
	if err != nil {
		return t, err
	}
	if ready != nil {
		if again := ready.model.repeat(boot, req, facts, strict); again != nil {
			return again, nil
		}
	}
	t.warnings = append(t.warnings, strict...)
	before := len(t.warnings)
	if err := t.rule(req.Isolation); err != nil {
		return t, err
	}
	if err := t.seccomp(boot, req.Isolation); err != nil {
		return t, err
	}
	t.lasting = t.warnings[before:]
	if t.object != "" {
		// The object itself is long and only the bundle on disk needs it: see describe.
		facts.Host.Seccomp = &specs.LinuxSeccomp{}
	}
	switch {
	case t.rootless:
	case ready != nil && ready.slot != nil:
		facts.Host.SlotBase = ready.base
	default:
		if facts.Host.SlotBase, t.slot, err = host.AllocateSlot(string(boot.StateDir)); err != nil {
			return t, err
		}
		if breach.Of("id_slots") {
			facts.Host.SlotBase = 0x70000000
		}
	}
	t.base = facts.Host.SlotBase
	if t.config, t.skeleton, err = bundle.BuildParts(req, facts.Host); err != nil {
		return t, err
	}
	breachConfig(t.config)
	if boot.Policy != nil {
		if err := t.judge(boot.Policy, boot.Template, facts.Host.Binds, facts.Host.Rootfs); err != nil {
			return t, err
		}
	}
	if !t.rootless {
		u := t.config.Process.User
		t.ids = [2]int{int(facts.Host.SlotBase + u.UID), int(facts.Host.SlotBase + u.GID)}
	}
	return t, nil
}

// compile makes the launch plan.
func (t *translation) compile(dir string, tasks int) (*plan.Plan, error) {
	if t.bare {
		return plan.Process(t.config)
	}
	return t.compileFrom(t.origin(dir, tasks))
}

func (t *translation) compileFrom(o plan.Origin) (*plan.Plan, error) {
	p, err := plan.Compile(o.Spec, o.Facts)
	if err == nil {
		breachPlan(p)
	}
	if t.outside {
		err = bundle.Pointed(err)
	}
	return p, err
}

// origin is what the launch plan is made of.
func (t *translation) origin(dir string, tasks int) plan.Origin {
	kinds := host.BundleKinds(t.config, t.root)
	for _, path := range t.masked {
		kinds[path] = plan.KindFile // inside, whatever is there on the host
	}
	facts := plan.Facts{Rootless: t.rootless, BundleDir: dir, Kinds: kinds, Tasks: tasks,
		Filter: t.filter, Skeleton: t.skeleton, NoInit: t.noInit, NoStdin: t.noStdin, Landlock: t.landlock,
		RootUIDMap: t.rootMap, RootGIDMap: t.rootMap, Hierarchies: t.hierarchies}
	t.listen(&facts)
	return plan.Origin{Spec: t.config, Facts: facts}
}

// describe keeps what config.json says until others may look for it, see offer:
// encoding it takes as long as building the sandbox, and most commands have ended
// before, with which the directory goes.
func (e *execution) describe(t *translation) {
	e.writeBundle = func() error { return bundle.WriteFiltered(e.dir.Bundle(), t.config, t.object) }
}

// control makes the cgroup with its limits.
func (e *execution) control(config *specs.Spec) error {
	if slices.Contains(e.without, WithoutLimits) {
		return nil
	}
	h, err := cgroup.Detect()
	if err != nil {
		return err
	}
	e.host, e.version = h, h.Mode
	if err := e.sweepPredecessor(h); err != nil {
		return err
	}
	if !h.Usable() {
		return e.withoutCgroup(h)
	}
	if err := e.ioReaches(h, config.Linux.Resources); err != nil {
		return err
	}
	if e.group, err = h.Create(e.groupName(), config.Linux.Resources, e.mayLack); err != nil {
		return inRequest(err)
	}
	if e.req.Resources.CPUTimeMS != nil && cpuOf(e.group) == nil && !e.mayLack(spec.LimitCPUTime) {
		return lacking(h, spec.LimitCPUTime)
	}
	return nil
}

// sweepPredecessor removes what a shim left that was ready for this execution and
// died before it began.
func (e *execution) sweepPredecessor(h *cgroup.Host) error {
	if e.boot.Foreground || e.boot.Template || e.givenUp != nil {
		return nil
	}
	name := recordedGroup(e.dir)
	if name == "" {
		return nil
	}
	if err := sweepGroups(h, name); err != nil {
		return err
	}
	return os.Remove(e.dir.Cgroup())
}

func lacking(h *cgroup.Host, limit string) *fault.Fault {
	return fault.New(fault.LimitUnavailable, "limit "+limit, h.Missing()[limitController[limit]]).WithField(limitField[limit])
}

// withoutCgroup is for hosts on which no group can be made: what was asked for
// is refused, what is a default goes and is told.
func (e *execution) withoutCgroup(h *cgroup.Host) error {
	var all fault.List
	for _, limit := range []string{spec.LimitMemory, spec.LimitPids, spec.LimitCPUShares, spec.LimitCPUQuota, spec.LimitCPUTime, spec.LimitIO} {
		if e.req.Asked(limit) && !e.mayLack(limit) {
			all = append(all, lacking(h, limit))
		}
	}
	return all.Err()
}

var limitController = map[string]string{spec.LimitMemory: cgroup.Memory, spec.LimitPids: cgroup.Pids, spec.LimitCPUShares: cgroup.CPU, spec.LimitCPUQuota: cgroup.CPU, spec.LimitCPUTime: cgroup.CPU, spec.LimitIO: cgroup.IO}

var limitField = map[string]string{spec.LimitMemory: "/resources/memory_bytes", spec.LimitPids: "/resources/max_pids",
	spec.LimitCPUShares: "/resources/cpu_shares", spec.LimitCPUQuota: "/resources/cpu_quota",
	spec.LimitCPUTime: "/resources/cpu_time_ms", spec.LimitIO: "/resources/io"}

// inRequest names the fields of the request instead of those of the bundle.
func inRequest(err error) error {
	var list fault.List
	if !errors.As(err, &list) {
		return err
	}
	for _, f := range list {
		limit, _ := f.Details["limit"].(string)
		if limit == cgroup.LimitSwap {
			limit = spec.LimitMemory
		}
		if field := limitField[limit]; field != "" {
			f.Field = field
		}
	}
	return list.Err()
}

// mayLack tells whether a limit may be missing: the request lists it, or it is
// a default that nobody asked for.
func (e *execution) mayLack(limit string) bool {
	for _, name := range e.req.Isolation.AllowDegraded {
		if name == limit {
			return true
		}
	}
	if slices.Contains(e.boundless, limit) {
		return true
	}
	return !e.req.Asked(limit)
}

func (e *execution) groupName() string { return cgroupName(e.boot.StateDir, e.boot.ExecutionID) }

// cgroupName is the name of the execution's cgroup. An id may be in use in two
// state directories at once, and a sweep of one must not kill what is the other's;
// a directory has several paths, but one inode.
func cgroupName(state layout.State, id string) string {
	var st unix.Stat_t
	if unix.Stat(state.Executions(), &st) != nil {
		return id // nor can there be an execution
	}
	return id + "-" + strconv.FormatUint(st.Ino^uint64(st.Dev)<<32, 36)
}
