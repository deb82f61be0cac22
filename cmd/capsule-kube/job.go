package main

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/capsule-run/capsule/runtime/task/terms"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

const (
	// containerName is that of the one container whose command is judged.
	containerName = "command"
	// messagePath is where a kubelet looks for the verdict.
	messagePath = "/dev/termination-log"
	// managed marks the jobs of this program.
	managed = "app.kubernetes.io/managed-by"
	// remains is how long an ended job stays when nobody takes it away, in seconds.
	remains = 300
	// inputMax is the most of stdin, in bytes: it is in an annotation, and all of a pod's
	// have 256 KiB together, in base64.
	inputMax = 180 << 10
)

// total is the longest time from the command's start to its end.
func total(r *spec.Request) time.Duration {
	return time.Duration(r.TimeoutMS+r.GraceMS) * time.Millisecond
}

// job describes a request in Kubernetes' words, as far as it has them. The rest is in the
// annotation. What a pod cannot have is refused, all of it at once.
func (o *options) job(id string, r *spec.Request) (*batchv1.Job, error) {
	if err := refuse(r); err != nil {
		return nil, err
	}
	pod, err := o.pod(id, r)
	if err != nil {
		return nil, err
	}
	name := o.name
	if name == "" {
		name = "capsule-" + newID()[:13] // another number than the id, which is a secret of ours
	}
	labels := map[string]string{"app.kubernetes.io/name": "capsule", managed: "capsulectl"}
	pod.Labels = labels
	deadline := int64((o.patience+total(r))/time.Second) + 60
	zero, one, ttl := int32(0), int32(1), int32(remains)
	job := &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: batchv1.JobSpec{BackoffLimit: &zero, Completions: &one, Parallelism: &one, TTLSecondsAfterFinished: &ttl,
			ActiveDeadlineSeconds: &deadline, Template: *pod},
	}
	if len(r.Labels) > 0 {
		text, err := json.Marshal(r.Labels)
		if err != nil {
			return nil, fault.Wrap(fault.InvalidValue, "encode labels", err).WithField("/labels")
		}
		job.Annotations = map[string]string{"run.capsule.labels": string(text)}
	}
	return job, nil
}

// refuse lists what a pod cannot have.
func refuse(r *spec.Request) error {
	var all fault.List
	no := func(code fault.Code, field, text, hint string) {
		all = append(all, fault.New(code, "", text).WithField(field).WithHint(hint))
	}
	i := r.Isolation
	for _, p := range []struct {
		field string
		n     int
	}{{"/isolation/readonly_paths", len(i.ReadonlyPaths)}, {"/isolation/writable_paths", len(i.WritablePaths)}, {"/isolation/bind_mounts", len(i.BindMounts)}} {
		if p.n > 0 {
			no(fault.Unsupported, p.field, "a pod sees no paths of a host", "Put the files into an image and name it with --image, or give them to stdin.")
		}
	}
	if i.Rootfs != nil {
		no(fault.Unsupported, "/isolation/rootfs", "the root of a pod is an image", "Name it with --image.")
	}
	if i.Backend != spec.BackendNamespace {
		no(fault.Unsupported, "/isolation/backend", "a pod is made of namespaces", "Leave it out.")
	}
	if name := i.Seccomp.Name; name != spec.SeccompDefault && name != spec.SeccompStrict && name != spec.SeccompNetwork {
		no(fault.Unsupported, "/isolation/seccomp", "nodes have the filters default, strict and network", "Name one of them.")
	}
	if r.Resources.IO.Bounds() && !slices.Contains(i.AllowDegraded, spec.LimitIO) {
		no(fault.LimitUnavailable, "/resources/io", "a pod has no such limit", "Leave it out, or put io into isolation.allow_degraded.")
	}
	if slices.Contains(i.Require, spec.WallLandlock) {
		no(fault.LimitUnavailable, "/isolation/require", "pods have no landlock", "Leave it out.")
	}
	if n := r.Resources.MaxOutputBytes; n > terms.MaxOutput {
		no(fault.OutOfRange, "/resources/max_output_bytes", "at most 4 MiB go through the log of a pod", "Lower it.")
	}
	if r.Stdin != nil && len(*r.Stdin) > inputMax {
		no(fault.OutOfRange, "/stdin", "at most 180 KiB go through an annotation", "Put it into an image, or let the command fetch it.")
	}
	return all.Err()
}

// pod describes the one pod.
func (o *options) pod(id string, r *spec.Request) (*corev1.PodTemplateSpec, error) {
	t := terms.Terms{ID: id, Container: containerName, TimeoutMS: r.TimeoutMS, GraceMS: r.GraceMS, MaxOutputBytes: r.Resources.MaxOutputBytes,
		OutputPolicy: string(r.Resources.OutputPolicy), MaxPids: r.Resources.MaxPids, Network: r.Isolation.Network, Rlimits: o.rlimits(r), Message: messagePath}
	if r.Resources.CPUTimeMS != nil {
		t.CPUTimeMS = *r.Resources.CPUTimeMS
	}
	if r.Stdin != nil {
		t.Stdin = *r.Stdin
	}
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidValue, "encode terms", err)
	}
	user, group, err := ids(r.Isolation.User)
	if err != nil {
		return nil, err
	}
	disk := *resource.NewQuantity(r.Resources.DiskBytes, resource.BinarySI)
	memory := func(name string) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &disk}}}
	}
	grace := (r.GraceMS + 999) / 1000
	host := o.hostUsers
	return &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{terms.Annotation: string(text)}},
		Spec: corev1.PodSpec{
			RuntimeClassName: &o.runtimeClass, RestartPolicy: corev1.RestartPolicyNever, Hostname: hostname(r.Isolation.Hostname),
			AutomountServiceAccountToken: no(), EnableServiceLinks: no(), HostUsers: &host,
			// The pod's own process 1 reaps, and signals mean to the command what they mean
			// to any process that is not the first.
			ShareProcessNamespace: &r.Isolation.Init, TerminationGracePeriodSeconds: &grace,
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, FSGroup: &group, SeccompProfile: o.seccomp(r)},
			Volumes:         []corev1.Volume{memory("workspace"), memory("tmp")},
			Containers:      []corev1.Container{o.container(r, user)},
		},
	}, nil
}

func (o *options) container(r *spec.Request, user int64) corev1.Container {
	readonly, notRoot := true, user != 0
	c := corev1.Container{
		Name: containerName, Image: o.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: literal(r.Command), WorkingDir: r.Isolation.WorkingDirectory, Resources: limits(r),
		TerminationMessagePath: messagePath, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		VolumeMounts: []corev1.VolumeMount{{Name: "workspace", MountPath: "/workspace"}, {Name: "tmp", MountPath: "/tmp"}},
		SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: no(), ReadOnlyRootFilesystem: &readonly, RunAsNonRoot: &notRoot,
			Privileged: no(), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
	}
	environment := map[string]string{"HOME": "/workspace", "LANG": "C.UTF-8"}
	for k, v := range r.Environment {
		environment[k] = v
	}
	for k, v := range environment {
		c.Env = append(c.Env, corev1.EnvVar{Name: k, Value: literal([]string{v})[0]})
	}
	slices.SortFunc(c.Env, func(a, b corev1.EnvVar) int { return strings.Compare(a.Name, b.Name) })
	return c
}

// limits are what a scheduler and a kubelet know of. Shares are what a pod requests of a
// processor only where the caller asked for them: a request keeps others away.
func limits(r *spec.Request) corev1.ResourceRequirements {
	memory := *resource.NewQuantity(r.Resources.MemoryBytes, resource.BinarySI)
	l := corev1.ResourceList{corev1.ResourceMemory: memory}
	cpu := int64(100)
	if r.Asked(spec.LimitCPUShares) {
		cpu = (r.Resources.CPUShares*1000 + 1023) / 1024
	}
	if q := r.Resources.CPUQuota; q != nil {
		quota := int64(math.Ceil(*q * 1000))
		l[corev1.ResourceCPU] = *resource.NewMilliQuantity(quota, resource.DecimalSI)
		cpu = min(cpu, quota)
	}
	return corev1.ResourceRequirements{Limits: l,
		Requests: corev1.ResourceList{corev1.ResourceMemory: memory, corev1.ResourceCPU: *resource.NewMilliQuantity(cpu, resource.DecimalSI)}}
}

// rlimits are the request's. The number of processes of a user is one of all pods where
// they share the host's users, so there it is left to max_pids.
func (o *options) rlimits(r *spec.Request) (list []specs.POSIXRlimit) {
	for name, l := range r.Resources.Rlimits {
		if name != "nproc" || !o.hostUsers || r.Asked("rlimit_nproc") {
			list = append(list, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Hard: l.Hard, Soft: l.Soft})
		}
	}
	slices.SortFunc(list, func(a, b specs.POSIXRlimit) int { return strings.Compare(a.Type, b.Type) })
	return list
}

func (o *options) seccomp(r *spec.Request) *corev1.SeccompProfile {
	if o.runtimeSeccomp {
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	file := "capsule/" + r.Isolation.Seccomp.Name + ".json"
	return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &file}
}

// literal keeps a kubelet from replacing $(NAME) by variables: a doubled $ is one.
func literal(list []string) []string {
	result := make([]string, len(list))
	for i, s := range list {
		result[i] = strings.ReplaceAll(s, "$", "$$")
	}
	return result
}

// hostname makes a name of the request one of a pod, which has no dots and no capitals.
func hostname(s string) string {
	s, _, _ = strings.Cut(strings.ToLower(s), ".")
	return strings.Trim(s[:min(len(s), 63)], "-")
}

// ids reads "uid[:gid]", which is valid.
func ids(user string) (uid, gid int64, err error) {
	a, b, ok := strings.Cut(user, ":")
	if !ok {
		b = a
	}
	if uid, err = strconv.ParseInt(a, 10, 64); err == nil {
		gid, err = strconv.ParseInt(b, 10, 64)
	}
	if err != nil {
		return 0, 0, fault.Wrap(fault.InvalidValue, "read user", err).WithField("/isolation/user")
	}
	return uid, gid, nil
}

func no() *bool { return new(bool) }

// printJob writes what would be made, as JSON: kubectl reads it.
func printJob(out io.Writer, job *batchv1.Job) error {
	text, err := json.MarshalIndent(job, "", "  ")
	if err == nil {
		_, err = out.Write(append(text, '\n'))
	}
	if err != nil {
		return fault.Wrap(fault.IO, "print the job", err)
	}
	return nil
}
