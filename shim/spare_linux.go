package shim

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// spare is a sandbox that was built for a template before it was known what runs
// in it. It is used for one execution or for none.
type spare struct {
	base    uint32 // first host id of its slot; 0 without one
	slot    *os.File
	idmap   host.IDMapProbe // kept: making it is most of what a bind costs to look at
	host    *cgroup.Host
	group   *cgroup.Group // nil: no cgroup can be made here
	name    string        // of the group
	limits  *specs.LinuxResources
	bundle  string // the directory that its plan names
	model   *model // of what it was made; nil until it is
	origin  plan.Origin
	plan    *plan.Plan // what it was made into
	sandbox *launch.Sandbox
	stdin   *os.File // writer
	outputs [2]int   // readers of stdout and stderr
	sources []identity
	hard    map[string]uint64 // hard limits that its processes have inherited
	mounts  int               // a mountinfo, which tells when the host's mounts change
	around  string            // the mounts at, above and below sources
}

// identity is what a path of the host was when the sandbox was built.
type identity struct {
	path     string
	dev, ino uint64
}

func identityOf(path string) (identity, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return identity{path, uint64(st.Dev), st.Ino}, err
}

// buildSpare builds a sandbox for the request of a template. What it acquired is
// given back when it fails.
func buildSpare(boot shimapi.Bootstrap) (s *spare, err error) {
	req, err := spec.DecodeResolved(boot.Request)
	if err != nil {
		return nil, err
	}
	e := newExecution(boot)
	s = &spare{name: e.groupName(), bundle: e.dir.Bundle(), outputs: [2]int{-1, -1}, mounts: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.discard())
			s = nil
		}
	}()
	// Before anything is looked at that it is to watch. Not os.Open: each poll takes
	// the news away, and Go's poller would be the first.
	if s.mounts, err = unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return s, fault.Wrap(fault.SystemCall, "watch mounts", err)
	}
	e.req = req
	t, err := translate(boot, req, s)
	s.slot, s.base = t.slot, t.base
	if err != nil {
		return s, err
	}
	if t.noInit || len(t.degraded) > 0 {
		return s, fault.New(fault.Unsupported, "prepare a sandbox", "the template has no init, or walls that this host lacks")
	}
	if err := os.MkdirAll(s.bundle+"/"+bundle.RootfsName, 0o700); err != nil {
		return s, err
	}
	// The directory gets another name with its execution, a v2 cgroup cannot.
	if err := layout.WriteFile(e.dir.Cgroup(), []byte(s.name)); err != nil {
		return s, err
	}
	failpoint.Here("shim.spare.named")
	err = e.control(t.config)
	s.group, s.host, s.limits = e.group, e.host, t.config.Linux.Resources
	if err != nil {
		return s, err
	}
	failpoint.Here("shim.spare.cgroup")
	s.origin = t.origin(s.bundle, e.tasks())
	s.remember(boot, req, t)
	if s.plan, err = t.compileFrom(s.origin); err != nil {
		return s, err
	}
	return s, s.launch(t)
}

// launch builds the sandbox of a plan as far as it goes without a command.
func (s *spare) launch(t *translation) error {
	ends, err := s.pipes(t)
	defer func() {
		for _, fd := range ends {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	if err != nil {
		return err
	}
	if err := s.watch(t.config); err != nil {
		return err
	}
	o := launch.Options{Stdin: ends[0], Stdout: ends[1], Stderr: ends[2], CgroupFD: -1, Keep: s.slot, Hold: true, TimerSlack: usualSlack}
	if s.group != nil {
		o.CgroupFD, o.Tasks = s.group.DirFD(), s.group.TasksFDs()
	}
	ready, err := launch.Prepare(s.plan, o)
	if err != nil {
		return err
	}
	if s.sandbox, err = ready.Start(); err != nil {
		return err
	}
	failpoint.Here("shim.spare.cloned")
	late := time.AfterFunc(setupTime, func() { _ = s.sandbox.Kill() }) // ESRCH: it has failed by itself
	defer late.Stop()
	return s.sandbox.Held()
}

// watch notes what the sandbox shows of the host, and the limits that its processes
// inherit: with the right to, a later one of this process would be raised.
func (s *spare) watch(c *specs.Spec) error {
	for i := range c.Mounts {
		if c.Mounts[i].Type != "bind" {
			continue
		}
		id, err := identityOf(c.Mounts[i].Source)
		if err != nil {
			return fault.Wrap(fault.Filesystem, "stat", err).WithPath(c.Mounts[i].Source)
		}
		s.sources = append(s.sources, id)
	}
	var err error
	if s.around, err = mountsAround(s.sources); err != nil {
		return err
	}
	s.hard = map[string]uint64{}
	for _, l := range c.Process.Rlimits {
		number, ok := plan.Rlimit(l.Type)
		var have unix.Rlimit
		if !ok || unix.Prlimit(0, number, nil, &have) != nil {
			continue
		}
		s.hard[l.Type] = have.Max
	}
	return nil
}

// mountsAround are the lines of the mountinfo of this namespace whose mount points lie at,
// above or below one of the paths. Those above matter for their flags, which a mount of the
// host may get after a sandbox has its own: the file stays the same.
func mountsAround(paths []identity) (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fault.Wrap(fault.SystemCall, "read mounts", err)
	}
	var around strings.Builder
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): the mount point is the fifth field.
		fields := strings.SplitN(line, " ", 6)
		if len(fields) < 6 {
			continue
		}
		at := host.Unescape(fields[4])
		if slices.ContainsFunc(paths, func(p identity) bool { return below(at, p.path) || below(p.path, at) }) {
			around.WriteString(line)
		}
	}
	return around.String(), nil
}

// below tells whether a canonical path is another one, or lies below it.
func below(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// allows tells whether the processes of the sandbox may have these limits. One that
// its template did not have is not known of.
func (s *spare) allows(limits []specs.POSIXRlimit) bool {
	for _, l := range limits {
		if most, known := s.hard[l.Type]; !known || l.Hard > most {
			return false
		}
	}
	return true
}

// pipes makes the three streams and returns the ends that the sandbox gets; -1
// where there is none yet.
func (s *spare) pipes(t *translation) (ends [3]int, err error) {
	ends = [3]int{-1, -1, -1}
	var in [2]int
	if err := unix.Pipe2(in[:], unix.O_CLOEXEC); err != nil {
		return ends, fault.Wrap(fault.IO, "make stdin pipe", err)
	}
	ends[0], s.stdin = in[0], os.NewFile(uintptr(in[1]), "stdin")
	for i := range s.outputs {
		if s.outputs[i], ends[i+1], err = output.Pipe(); err != nil {
			return ends, err
		}
	}
	for _, fd := range ends {
		t.own(fd)
	}
	return ends, nil
}

// fresh tells whether the host is what it was when the sandbox was built: the paths
// that it shows are the same files, and no mount at, above or below them has changed.
// All else that lies there it sees live.
func (s *spare) fresh() bool {
	if !s.sandbox.Waits() {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(s.mounts), Events: unix.POLLPRI}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		// Hosts mount this and that all day, most of it elsewhere.
		if around, err := mountsAround(s.sources); err != nil || around != s.around {
			return false
		}
	}
	for _, was := range s.sources {
		if is, err := identityOf(was.path); err != nil || is != was {
			return false
		}
	}
	return true
}

// discard gives everything back that an execution did not take.
func (s *spare) discard() error {
	if s == nil {
		return nil
	}
	var errs []error
	s.idmap.Close()
	if s.sandbox != nil {
		s.sandbox.Abandon()
	}
	for _, fd := range append(s.outputs[:], s.mounts) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if s.stdin != nil {
		_ = s.stdin.Close() // nothing is buffered
	}
	if s.group != nil {
		errs = append(errs, endGroup(s.group))
	}
	if s.slot != nil {
		_ = s.slot.Close() // the lock ends with it
	}
	*s = spare{outputs: [2]int{-1, -1}, mounts: -1}
	return errors.Join(errs...)
}

// adopt takes the spare for a request. False: the request wants another sandbox,
// or the host has changed.
func (e *execution) adopt(req *spec.Request, streamStdin bool) (bool, error) {
	s := e.spare
	if !s.fresh() {
		return false, nil
	}
	fitted := *req // what is fitted to this host is fitted again when it comes to nothing
	t, err := translate(e.boot, &fitted, s)
	e.take(t)
	if err != nil {
		return true, err // as without a spare
	}
	if !s.allows(t.config.Process.Rlimits) {
		return false, nil
	}
	t.noStdin = req.Stdin == nil && !streamStdin
	e.clock.mark("bundle")
	p, err := s.replan(t)
	if err != nil || p == nil || len(t.degraded) > 0 {
		return false, nil // a plan that is refused is refused again
	}
	breachPlan(p)
	if !s.sandbox.Takes(p) {
		return false, nil
	}
	e.clock.mark("plan")
	if fits, err := e.relimit(s, t.config.Linux.Resources); !fits || err != nil {
		return fits, err
	}
	e.clock.mark("cgroup")
	failpoint.Here("shim.create.adopted")
	*req = fitted
	e.group, e.host, e.version = s.group, s.host, s.host.Mode
	e.slot, e.waiting, e.plan = s.slot, s.sandbox, p
	e.stdio.payload = [3]int{-1, -1, -1}
	stdin, outputs := s.stdin, s.outputs
	s.idmap.Close()
	unix.Close(s.mounts)
	e.spare = nil // all of it is the execution's
	if t.noStdin {
		_ = stdin.Close() // the command takes /dev/null
	} else if e.stdio.stdin = stdin; !streamStdin {
		e.stdio.stdin = nil
		feed(stdin, *req.Stdin)
	}
	e.describe(t)
	for i, r := range outputs {
		if err := e.capture(i, r); err != nil {
			return true, err
		}
	}
	e.clock.mark("prepare")
	return true, nil
}

// replan is the plan with another command; nil: it takes another sandbox.
func (s *spare) replan(t *translation) (*plan.Plan, error) {
	if !t.repeated {
		return s.plan.Rebind(s.origin, t.origin(s.bundle, tasksOf(s.group)))
	}
	// Its sources are of the kind that was probed again, and what there is in /proc does
	// not change its kind; but a module may have brought what has to be masked.
	for path, kind := range s.origin.Facts.Kinds {
		if kind == plan.KindMissing && host.KindAt(path) != plan.KindMissing {
			return nil, nil
		}
	}
	o := s.origin
	o.Spec, o.Facts.NoStdin = t.config, t.noStdin
	return s.plan.Recommand(o)
}

// giveUpSpare ends the spare beside the start of another sandbox.
func (e *execution) giveUpSpare() {
	s := e.spare
	e.spare, e.givenUp = nil, make(chan error, 1)
	go func() { e.givenUp <- s.discard() }()
}

// relimit gives the group the limits of a request; false: it has one that the
// request has not.
func (e *execution) relimit(s *spare, r *specs.LinuxResources) (bool, error) {
	if s.group == nil {
		return true, e.withoutCgroup(s.host)
	}
	if e.req.Resources.CPUTimeMS != nil && cpuOf(s.group) == nil && !e.mayLack(spec.LimitCPUTime) {
		return true, lacking(s.host, spec.LimitCPUTime)
	}
	if err := e.ioReaches(s.host, r); err != nil {
		return true, err
	}
	if s.group.Whole() && reflect.DeepEqual(r, s.limits) {
		return true, nil
	}
	// Several bounds go by the name of io, each of which the group may have too much.
	if s.limits.BlockIO != nil && !reflect.DeepEqual(r.BlockIO, s.limits.BlockIO) {
		return false, nil
	}
	fits, err := s.host.Limit(s.group, r, e.mayLack)
	return fits, inRequest(err)
}

// release lets the held sandbox run the command.
func (e *execution) release() (*launch.Sandbox, error) {
	sb := e.waiting
	e.waiting = nil
	if err := sb.Release(e.plan); err != nil {
		sb.Abandon()
		return nil, err
	}
	return sb, nil
}

// await builds the sandbox of a template, tells the starter, and waits for what it
// is for. io.EOF: for nothing; all is given back.
func await(template shimapi.Bootstrap) (boot shimapi.Bootstrap, s *spare, err error) {
	s, err = buildSpare(template)
	if err != nil {
		// The starter tells it, and this process ends.
		_, _ = unix.Write(shimapi.ConnectionFD, []byte(err.Error()))
		return boot, nil, errors.Join(io.EOF, unused(template, nil))
	}
	if _, err := unix.Write(shimapi.ConnectionFD, []byte{shimapi.Ready}); err != nil {
		return boot, nil, errors.Join(io.EOF, unused(template, s))
	}
	var r receiver
	boot, err = shimapi.ReadBootstrap(&r)
	if err == nil {
		return boot, s, nil
	}
	return boot, nil, errors.Join(err, unused(template, s))
}

// unused gives back what was prepared for nothing. The directory goes, unless an
// execution that waits for its start was recorded in it meanwhile.
func unused(template shimapi.Bootstrap, s *spare) error {
	if err := s.discard(); err != nil {
		logLine("clean up: " + err.Error())
		return nil // the next sweep finds by the directory what is left
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(shimapi.LockFD))
	if err != nil || filepath.Dir(path) != template.StateDir.Executions() {
		return nil // it is nowhere that we know
	}
	dir := layout.Dir(path)
	if _, err := os.Lstat(dir.Record()); err == nil {
		return removeSandbox(dir)
	}
	return os.RemoveAll(path)
}
