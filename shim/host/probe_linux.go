package host

import (
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// Probe gathers the facts for one request, whose defaults are filled in. All
// problems with its paths are reported at once as a fault.List: E1006 for what
// does not exist or is of the wrong type, E5002 for what policy refuses, E2006
// for a writable path whose file system cannot be idmapped. It runs once per
// execution and is quick: some thirty system calls without binds.
func Probe(req *spec.Request, opt Options) (*Facts, error) {
	p := prober{req: req, opt: opt, facts: new(Facts)}
	h := &p.facts.Host
	h.ExecutionID, h.CgroupsPath = opt.ExecutionID, opt.CgroupsPath
	if err := p.own(); err != nil {
		return nil, err
	}
	if req.Isolation.Network {
		h.ResolvConf = resolvConf()
	}
	if req.Isolation.Rootfs == nil {
		h.System, h.Etc = systemEntries(), etcEntries()
	}
	if err := p.paths(); err != nil {
		return nil, err
	}
	if err := p.disks(); err != nil {
		return nil, err
	}
	p.warnDisk()
	return p.facts, nil
}

// own are the facts of this process and its kernel.
func (p *prober) own() error {
	h := &p.facts.Host
	if k := p.opt.Known; k != nil {
		h.UID, h.GID, h.HostMemory, h.HostCPUs = k.Host.UID, k.Host.GID, k.Host.HostMemory, k.Host.HostCPUs
		h.TimeNamespace, h.CgroupNamespace, h.Rootless = k.Host.TimeNamespace, k.Host.CgroupNamespace, k.Host.Rootless
		return nil
	}
	h.UID, h.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	h.HostMemory = memory()
	// The affinity mask that the runtime read when the process started.
	h.HostCPUs = runtime.NumCPU()
	return p.namespaces()
}

// prober holds what one Probe shares among its parts.
type prober struct {
	req    *spec.Request
	opt    Options
	policy policy
	idmap  *IDMapProbe
	mounts mountFacts
	facts  *Facts
	faults fault.List
}

// paths resolves the root and the binds of the request.
func (p *prober) paths() error {
	iso := &p.req.Isolation
	n := len(iso.ReadonlyPaths) + len(iso.WritablePaths) + len(iso.BindMounts)
	if n == 0 && iso.Rootfs == nil {
		return nil
	}
	p.policy = policyOf(p.opt.Policy)
	if p.opt.StateDir != "" {
		state, err := canonical(p.opt.StateDir)
		if err != nil {
			// Without it nobody could tell what must not be shown.
			return fault.Wrap(fault.IO, "open state directory", err).WithPath(p.opt.StateDir)
		}
		p.policy.state = state
	}
	defer p.idMapping()()
	if iso.Rootfs != nil {
		p.rootfs(*iso.Rootfs)
	}
	p.facts.Host.Binds = make([]bundle.Bind, 0, n)
	for i, path := range iso.ReadonlyPaths {
		p.bind("/isolation/readonly_paths/"+strconv.Itoa(i), path, path, true)
	}
	for i, path := range iso.WritablePaths {
		p.bind("/isolation/writable_paths/"+strconv.Itoa(i), path, path, false)
	}
	for i, b := range iso.BindMounts {
		p.bind("/isolation/bind_mounts/"+strconv.Itoa(i), b.Source, b.Destination, b.Readonly)
	}
	return p.faults.Err()
}

// idMapping gets the probe for idmapped mounts ready; the returned function ends its use.
func (p *prober) idMapping() (done func()) {
	if p.idmap = p.opt.IDMap; p.idmap != nil {
		return func() {}
	}
	p.idmap = new(IDMapProbe)
	return p.idmap.Close
}

func (p *prober) refuse(f *fault.Fault) { p.faults = append(p.faults, f) }

// degrade records a wall or limit that is weaker than asked.
func (p *prober) degrade(name, warning string) {
	p.facts.Warnings = append(p.facts.Warnings, warning)
	if !slices.Contains(p.facts.Degraded, name) {
		p.facts.Degraded = append(p.facts.Degraded, name)
	}
}

// warnDisk says when the tmpfs are smaller than the disk_bytes that were asked for,
// because memory bounds them. The default is as much as there is room for.
func (p *prober) warnDisk() {
	r := &p.req.Resources
	// One page is the granularity, not a shortfall.
	if got := bundle.DiskBytes(r); p.req.Asked(spec.LimitDisk) && got+int64(os.Getpagesize()) <= r.DiskBytes {
		p.facts.Warnings = append(p.facts.Warnings, "/workspace and /tmp hold "+strconv.FormatInt(got, 10)+
			" bytes instead of disk_bytes, because their pages count against memory_bytes; raise resources.memory_bytes for more.")
	}
}

// memory is the memory of the host in bytes, or 0 when it cannot be told.
func memory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit))
}

// maxResolvConf bounds what is copied; the resolver reads three servers.
const maxResolvConf = 16384

// resolvConf is the host's resolver configuration. A host without one resolves
// nothing, and neither does the sandbox.
func resolvConf() string {
	buf := make([]byte, maxResolvConf)
	return string(buf[:readFile("/etc/resolv.conf", buf)])
}

// readFile reads the beginning of a file of the host's into buf, and says how
// much; 0 when it cannot be read. It avoids package os, whose files are
// registered with the poller first.
func readFile(path string, buf []byte) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		got, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || got <= 0 {
			break
		}
		n += got
	}
	return n
}
