package shim

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/command"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// foreign is a bundle that no request of ours made: an orchestrator's, or one of
// a person who debugs.
type foreign struct {
	dir    string
	config *specs.Spec
	// request is bundle.Request, which policy has judged.
	request *spec.Request
	// warnings are what capsule does otherwise than the bundle says.
	warnings []string
	// confined: it has the walls that capsule adds.
	confined bool
}

// loadBundle reads a bundle, and what it asks for in the terms of a request.
func loadBundle(dir string, base *spec.Request) (*foreign, error) {
	config, err := bundle.Load(dir)
	if err != nil {
		return nil, bundle.Pointed(err)
	}
	f := &foreign{dir: dir, config: config}
	f.settle()
	if f.request, err = bundle.Request(config, dir, base); err != nil {
		return nil, bundle.Pointed(err)
	}
	return f, nil
}

// ownPath is where cgroupsPath may point: capsule chooses the place, and says so
// in the bundles that it writes.
const ownPath = "/capsule/capsule-"

// settle decides what the bundle leaves open or wants where capsule has its own: the
// place of the control group, the streams, and calls that a filter answers in two ways.
func (f *foreign) settle() {
	if p := f.config.Process; p != nil && p.Terminal {
		p.Terminal, p.ConsoleSize = false, nil
		f.warnings = append(f.warnings, "the command has pipes and no terminal, which process.terminal asks for")
	}
	l := f.config.Linux
	if l == nil {
		return // refused
	}
	if p := l.CgroupsPath; p != "" && !strings.HasPrefix(p, ownPath) {
		l.CgroupsPath = ""
		f.warnings = append(f.warnings, "the control group is below capsule's own and not at linux.cgroupsPath ("+p+"), so limits of groups above that place do not hold")
	}
	if l.Seccomp == nil {
		return
	}
	var twice []string
	if l.Seccomp, twice = seccomp.Decided(l.Seccomp); len(twice) > 0 {
		f.warnings = append(f.warnings, "linux.seccomp has two rules without conditions for "+strings.Join(twice, ", ")+": the stricter holds")
	}
}

// capCPU gives a bundle without a ceiling of its own that of the policy, in cores.
func (f *foreign) capCPU(cores float64) {
	quota, period := int64(cores*100000), uint64(100000)
	if f.config.Linux.Resources == nil {
		f.config.Linux.Resources = new(specs.LinuxResources)
	}
	r := f.config.Linux.Resources
	if r.CPU == nil {
		r.CPU = new(specs.LinuxCPU)
	}
	r.CPU.Quota, r.CPU.Period = &quota, &period
	f.request.Resources.CPUQuota = &cores
}

// translate makes the bundle ready for its plan, and says what was added.
// The slot of host ids is the caller's to close, also in failure.
func (f *foreign) translate(boot shimapi.Bootstrap) (t *translation, err error) {
	s := f.config
	t = &translation{config: s, noInit: !bundle.HasInit(s), ids: [2]int{-1, -1}, outside: true}
	defer func() { err = bundle.Pointed(err) }()
	o, err := host.ProbeBundle(s, f.dir, host.Options{StateDir: string(boot.StateDir), Policy: boot.Policy})
	if err != nil {
		return t, err
	}
	t.rootless, t.root, t.hierarchies, t.warnings = o.Rootless, o.Root, o.Hierarchies, append(f.warnings, o.Warnings...)
	place := bundle.Place{TimeNamespace: o.TimeNamespace, CgroupNamespace: o.CgroupNamespace, Rootless: o.Rootless, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if err := t.takeIDs(boot, &place); err != nil {
		return t, err
	}
	i := f.request.Isolation
	if err := t.rule(i); err != nil {
		return t, err
	}
	if i.Seccomp.Custom == nil {
		place.Seccomp = i.Seccomp.Name
	}
	added, idmapRoot := bundle.Confine(s, place)
	f.confined = true
	if !t.rootless {
		u := s.Process.User
		t.ids = [2]int{hostID(s.Linux.UIDMappings, u.UID), hostID(s.Linux.GIDMappings, u.GID)}
	}
	t.warnings = append(t.warnings, added...)
	if idmapRoot {
		t.idmap(o, place.SlotBase)
	}
	if err := t.seccomp(boot, i); err != nil {
		if g := fault.From(err, fault.Seccomp); g.Field == "/isolation/seccomp" {
			g.Field = "/linux/seccomp"
		}
		return t, err
	}
	if i.Seccomp.Custom == nil && t.object != "" {
		s.Linux.Seccomp = new(specs.LinuxSeccomp)
		if err := json.Unmarshal([]byte(t.object), s.Linux.Seccomp); err != nil {
			return t, fault.Wrap(fault.Seccomp, "decode filter", err)
		}
	}
	t.object = "" // it stands in the configuration
	if err := t.fitLimits(); err != nil {
		return t, err
	}
	if boot.Policy != nil {
		if err := t.judgeBundle(boot.Policy); err != nil {
			return t, err
		}
	}
	return t, nil
}

// hostID is what an id of the sandbox is on the host; -1: nothing.
func hostID(maps []specs.LinuxIDMapping, id uint32) int {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + (id - m.ContainerID))
		}
	}
	return -1
}

// takeIDs gives the bundle host ids, or takes those that it brings.
func (t *translation) takeIDs(boot shimapi.Bootstrap, place *bundle.Place) (err error) {
	l := t.config.Linux
	user := slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	switch {
	case t.rootless:
		return nil
	case !user:
		place.SlotBase, t.slot, err = host.AllocateSlot(string(boot.StateDir))
	default:
		for field, list := range map[string][]specs.LinuxIDMapping{"linux.uidMappings": l.UIDMappings, "linux.gidMappings": l.GIDMappings} {
			for i, m := range list {
				if m.HostID == 0 && m.Size > 0 {
					return fault.New(fault.IDMapping, "map ids", "maps the root of the host into the sandbox").WithField(field + "[" + strconv.Itoa(i) + "].hostID").
						WithHint("Map other host ids, or leave the user namespace out: capsule makes one.")
				}
			}
		}
		t.slot, err = host.LockRange(string(boot.StateDir), l.UIDMappings)
	}
	return err
}

// idmap shows files of the bundle with the ids that they have on disk, where
// their file system can.
func (t *translation) idmap(o *host.Outside, base uint32) {
	if o.RootIDMap {
		t.rootMap = []plan.IDMap{{Inside: 0, Outside: base, Size: bundle.IDRange}}
	}
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: base, Size: bundle.IDRange}}
	for i, can := range o.Binds {
		m := &t.config.Mounts[i]
		if can && len(m.UIDMappings)+len(m.GIDMappings) == 0 {
			m.UIDMappings, m.GIDMappings = maps, maps
			m.Options = append(slices.Clone(m.Options), "ridmap")
		}
	}
}

// fitLimits refuses rlimits that this process cannot give.
func (t *translation) fitLimits() error {
	var all fault.List
	for i, l := range t.config.Process.Rlimits {
		number, ok := plan.Rlimit(l.Type)
		if !ok {
			continue // the plan refuses it
		}
		if hard, fits := hardLimit(number, l.Hard); !fits {
			all = append(all, fault.New(fault.LimitUnavailable, "limit "+l.Type, "at most "+rlimitText(hard)+", the hard limit that capsule was started with").
				WithField("process.rlimits["+strconv.Itoa(i)+"]").WithHint("Lower it in config.json, or start capsule with a higher one."))
		}
	}
	return all.Err()
}

// judgeBundle applies the policy to the program that the command leads to.
func (t *translation) judgeBundle(p *shimapi.Policy) error {
	inside := *t.config
	tree := command.Tree{Config: &inside, Rootfs: t.root}
	if t.root != "" {
		root := specs.Mount{Destination: "/", Type: "bind", Source: t.root}
		inside.Mounts = append([]specs.Mount{root}, t.config.Mounts...)
	}
	for _, m := range t.config.Mounts {
		if bundle.IsBind(&m) && m.Source != m.Destination {
			tree.Brought = append(tree.Brought, m.Destination)
		}
	}
	var err error
	if t.masked, err = tree.Judge(p); err != nil {
		return err
	}
	t.config.Linux.MaskedPaths = append(slices.Clone(t.config.Linux.MaskedPaths), t.masked...)
	return nil
}

// boundless are the limits that a bundle leaves out.
func boundless(s *specs.Spec) []string {
	var list []string
	r := s.Linux.Resources
	if r == nil || r.Memory == nil || r.Memory.Limit == nil || *r.Memory.Limit <= 0 {
		list = append(list, spec.LimitMemory)
	}
	if r == nil || r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit <= 0 {
		list = append(list, spec.LimitPids)
	}
	if r == nil || r.CPU == nil || r.CPU.Shares == nil || *r.CPU.Shares == 0 {
		list = append(list, spec.LimitCPUShares)
	}
	return append(list, spec.LimitDisk)
}
