package bundle

import (
	"maps"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ociVersion is the version of the runtime specification that Build follows:
// the first with idmapped mounts and recursive mount options.
const ociVersion = "1.2.0"

// AnnotationInit is the OCI annotation that is "false" when the payload itself
// is process 1. Absent: a reaping process 1 stands in front of it.
const AnnotationInit = "run.capsule.init"

// Build translates a request, with every default filled in, and the facts of
// the host into an OCI configuration. It does no I/O and keeps nothing of its
// arguments but h.Seccomp. All problems are reported at once as a fault.List:
// E1001 and E1003 for values and ranges, E1006 for paths, E2006 for ids that
// this caller cannot map, E4001 for limits that are not enforced here.
func Build(req *spec.Request, h Host) (*specs.Spec, error) {
	s, _, err := BuildParts(req, h)
	return s, err
}

// BuildParts is Build that also gives the content of plan.AnnotationSkeleton:
// decoding it again in the same process costs 0.2 ms of cold reflection.
func BuildParts(req *spec.Request, h Host) (*specs.Spec, *plan.Skeleton, error) {
	b := builder{req: req, host: &h}
	b.uid, b.gid = b.user()
	b.checkRanges()
	b.checkWorkingDirectory()

	b.layout()
	s := &specs.Spec{
		Version:     ociVersion,
		Process:     b.process(),
		Root:        &specs.Root{Path: RootfsName, Readonly: true},
		Hostname:    req.Isolation.Hostname,
		Mounts:      b.mounts,
		Annotations: b.annotations(),
		Linux:       b.linux(),
	}
	if err := b.faults.Err(); err != nil {
		return nil, nil, err
	}
	return s, &b.skeleton, nil
}

// Repeat is BuildParts for a request with the same template, see spec.Request.Template, and the
// same host as those that config was made of: nothing but the command and the limits
// is built anew, all else is shared with config.
func Repeat(config *specs.Spec, req *spec.Request, h Host) (*specs.Spec, error) {
	b := builder{req: req, host: &h}
	b.checkRanges()
	s, process, linux := *config, *config.Process, *config.Linux
	process.Args, process.Env, process.Rlimits = req.Command, b.environment(), b.rlimits()
	linux.Resources = b.resources()
	s.Process, s.Linux = &process, &linux
	s.Annotations = maps.Clone(config.Annotations)
	s.Annotations[plan.AnnotationExecutionID] = h.ExecutionID
	return &s, b.faults.Err()
}

// builder holds what one Build shares among its parts.
type builder struct {
	req      *spec.Request
	host     *Host
	uid, gid uint32 // of the payload, inside the sandbox
	faults   fault.List

	skeleton plan.Skeleton
	mounts   []specs.Mount
}

// refuse records a problem with a field of the request.
func (b *builder) refuse(code fault.Code, field, message string) *fault.Fault {
	f := fault.New(code, "", message).WithField(field)
	b.faults = append(b.faults, f)
	return f
}

func (b *builder) annotations() map[string]string {
	a := map[string]string{plan.AnnotationSkeleton: encodeSkeleton(&b.skeleton)}
	if b.host.ExecutionID != "" {
		a[plan.AnnotationExecutionID] = b.host.ExecutionID
	}
	if !b.req.Isolation.Init {
		a[AnnotationInit] = "false"
	}
	return a
}

func (b *builder) linux() *specs.Linux {
	uids, gids := b.idMappings()
	return &specs.Linux{
		UIDMappings:       uids,
		GIDMappings:       gids,
		Resources:         b.resources(),
		CgroupsPath:       b.host.CgroupsPath,
		Namespaces:        b.namespaces(),
		Seccomp:           b.host.Seccomp,
		RootfsPropagation: "private",
		MaskedPaths: []string{
			"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
			"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
}

// idMappings is the whole slot as root, and the caller's own ids otherwise:
// an unprivileged process may map nothing else (user_namespaces(7)).
func (b *builder) idMappings() (uids, gids []specs.LinuxIDMapping) {
	if b.host.Rootless {
		return []specs.LinuxIDMapping{{ContainerID: b.uid, HostID: b.host.UID, Size: 1}},
			[]specs.LinuxIDMapping{{ContainerID: b.gid, HostID: b.host.GID, Size: 1}}
	}
	if b.host.SlotBase == 0 {
		// Host id 0 would make the root of the sandbox the root of the host.
		b.faults = append(b.faults, fault.New(fault.IDMapping, "map user ids", "no slot of host ids was allocated"))
	}
	return b.slotMapping(), b.slotMapping()
}

func (b *builder) slotMapping() []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: b.host.SlotBase, Size: IDRange}}
}

func (b *builder) namespaces() []specs.LinuxNamespace {
	ns := make([]specs.LinuxNamespace, 0, 8)
	ns = append(ns,
		specs.LinuxNamespace{Type: specs.UserNamespace},
		specs.LinuxNamespace{Type: specs.MountNamespace},
		specs.LinuxNamespace{Type: specs.PIDNamespace},
		specs.LinuxNamespace{Type: specs.IPCNamespace},
		specs.LinuxNamespace{Type: specs.UTSNamespace})
	if b.host.CgroupNamespace {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if b.host.TimeNamespace {
		ns = append(ns, specs.LinuxNamespace{Type: specs.TimeNamespace})
	}
	if !b.req.Isolation.Network {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	return ns
}
