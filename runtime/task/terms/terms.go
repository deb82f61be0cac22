// Package terms is the annotation by which a pod asks for a verdict: what capsule-kube
// writes and the shim reads.
package terms

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Annotation of a container, which asks for a verdict on its first process: Terms as JSON.
// containerd hands it on from a pod where its configuration names it among pod_annotations.
const Annotation = "run.capsule.verdict"

// annotationMax bounds it, in bytes. All annotations of a pod may have 256 KiB.
const annotationMax = 256 << 10

// The annotations by which containerd tells containers of a pod from each other.
const (
	containerName = "io.kubernetes.cri.container-name"
	containerType = "io.kubernetes.cri.container-type"
)

// Terms are what Kubernetes has no word for: how long a command may run, how much it may
// write, and what its first process reads. They take away and give nothing.
type Terms struct {
	// ID is that of the execution. Whoever reads the verdict knows it by this: a command
	// that does not know it cannot write one itself.
	ID string `json:"id"`
	// Container is the name of the one container that is meant: a pod may have others.
	Container string `json:"container"`
	// TimeoutMS is from the start on, in milliseconds, greater than 0. Then the first
	// process gets SIGTERM, and GraceMS later all are killed.
	TimeoutMS int64 `json:"timeout_ms"`
	GraceMS   int64 `json:"grace_ms"`
	// CPUTimeMS is of all processes. 0: no limit.
	CPUTimeMS int64 `json:"cpu_time_ms,omitempty"`
	// MaxOutputBytes is what is kept of each stream, at most MaxOutput.
	MaxOutputBytes int64 `json:"max_output_bytes"`
	// OutputPolicy is truncate, tail or kill.
	OutputPolicy string `json:"output_policy"`
	// MaxPids is for processes and threads. 0: the pod's limit alone.
	MaxPids int64 `json:"max_pids,omitempty"`
	// Network false gives the container an empty network of its own.
	Network bool `json:"network"`
	// Rlimits are by OCI name.
	Rlimits []specs.POSIXRlimit `json:"rlimits,omitempty"`
	// Stdin is base64 in JSON. Empty: /dev/null.
	Stdin []byte `json:"stdin,omitempty"`
	// Message is where the verdict goes besides the log.
	Message string `json:"message"`
}

// MaxOutput bounds what is kept of a stream, in bytes: it goes through the container's
// log, which a kubelet rotates at 10 MiB, and is in the shim's memory until then.
const MaxOutput = 4 << 20

// Of reads the terms of a container. Nil: nobody asks for a verdict on it. With an error that
// is about their values they are not nil.
func Of(s *specs.Spec) (*Terms, error) {
	text, ok := s.Annotations[Annotation]
	if !ok || s.Annotations[containerType] == "sandbox" {
		return nil, nil
	}
	if len(text) > annotationMax {
		return nil, Wrong("", fault.OutOfRange, "is longer than 256 KiB")
	}
	t := new(Terms)
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(t); err != nil {
		return nil, Wrong("", fault.JSONSyntax, err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, Wrong("", fault.JSONSyntax, "something follows the object")
	}
	if t.Container != s.Annotations[containerName] {
		return nil, nil
	}
	return t, t.check()
}

func (t *Terms) check() error {
	const day, minute = 86400000, 60000
	for _, n := range []struct {
		name              string
		value, least, top int64
	}{
		{"timeout_ms", t.TimeoutMS, 1, day}, {"grace_ms", t.GraceMS, 0, minute}, {"cpu_time_ms", t.CPUTimeMS, 0, 1 << 40},
		{"max_output_bytes", t.MaxOutputBytes, 0, MaxOutput}, {"max_pids", t.MaxPids, 0, 1 << 22},
	} {
		if n.value < n.least || n.value > n.top {
			return Wrong(n.name, fault.OutOfRange, strconv.FormatInt(n.value, 10)+" is not within "+strconv.FormatInt(n.least, 10)+".."+strconv.FormatInt(n.top, 10))
		}
	}
	switch t.OutputPolicy {
	case "truncate", "tail", "kill":
	default:
		return Wrong("output_policy", fault.InvalidValue, strconv.Quote(t.OutputPolicy)+" is none of truncate, tail and kill")
	}
	if t.ID == "" || len(t.ID) > 128 {
		return Wrong("id", fault.MissingField, "is missing or longer than 128 bytes")
	}
	if t.Message == "" {
		return Wrong("message", fault.MissingField, "is missing: name the container's terminationMessagePath")
	}
	return nil
}

// Wrong is an error about the annotation, or a field of it.
func Wrong(field string, code fault.Code, why string) error {
	name := "annotations." + Annotation
	if field != "" {
		name += "." + field
	}
	return fault.New(code, "read terms", why).WithField(name).WithHint("capsulectl kube run writes this annotation.")
}

// Timeout is TimeoutMS.
func (t *Terms) Timeout() time.Duration { return time.Duration(t.TimeoutMS) * time.Millisecond }

// Grace is GraceMS.
func (t *Terms) Grace() time.Duration { return time.Duration(t.GraceMS) * time.Millisecond }
