package main

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

const (
	// slack is how much longer than its own limits a pod may take, once its command runs.
	slack = time.Minute
	// asking is the pause between two looks at what is said of a job that has no pod.
	asking = 2 * time.Second
	// documentMax bounds the log that is read, in bytes: two streams in which every byte
	// is escaped, and the rest.
	documentMax = 64 << 20
)

// follower waits for the end of one job.
type follower struct {
	*cluster
	id, name string
	created  time.Time
	patience time.Duration // until the command runs
	total    time.Duration // from then on, by its own limits
	say      func(string)
	last     string // what was said
}

// run makes the job and gives the verdict on its command.
func (f *follower) run(ctx context.Context, job *batchv1.Job) (*spec.Response, error) {
	made, err := f.create(ctx, job)
	if err != nil {
		return nil, err
	}
	f.name = made.Name
	f.tell("job " + f.namespace + "/" + f.name + " is made")
	pod, err := f.wait(ctx)
	if err != nil {
		return nil, err
	}
	return f.verdict(ctx, pod)
}

func (f *follower) tell(text string) {
	if text != f.last && text != "" {
		f.last = text
		f.say(text)
	}
}

// wait follows the pod until its command has ended, or will not begin.
func (f *follower) wait(ctx context.Context) (*corev1.Pod, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.NewTimer(f.patience)
	defer late.Stop()
	ask := time.NewTicker(asking)
	defer ask.Stop()
	var pod *corev1.Pod
	running := false
	changes := f.changes(ctx)
	for {
		select {
		case change, ok := <-changes:
			if !ok {
				return nil, context.Cause(ctx)
			}
			if change.err != nil {
				return nil, change.err
			}
			if pod = change.pod; pod == nil {
				return nil, fault.New(fault.ShimLost, "follow the pod", "it was deleted before its command ended").WithHint("Somebody deleted it, or its node is gone.")
			}
			f.tell("pod " + pod.Name + ": " + describe(pod))
			if ended(pod) {
				return pod, nil
			}
			if err := hopeless(pod); err != nil {
				return nil, err
			}
			if now := started(pod); now && !running {
				running = true
				late.Reset(f.total + slack)
			}
		case <-ask.C:
			if pod == nil {
				if err := f.noPod(ctx); err != nil {
					return nil, err
				}
			}
		case <-late.C:
			return nil, f.late(pod, running)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// change is a new state of the pod. A nil pod: it is gone.
type change struct {
	pod *corev1.Pod
	err error
}

// changes sends every state of the job's pod. A watch that ends, as servers end them, is
// begun anew.
func (f *follower) changes(ctx context.Context) <-chan change {
	out := make(chan change)
	send := func(c change) bool {
		select {
		case out <- c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(out)
		seen := false
		var rest backoff
		for failures := 0; ctx.Err() == nil; {
			begun := time.Now()
			list, err := f.pods(ctx, f.name)
			if err == nil {
				for i := range list.Items {
					seen = true
					if !send(change{pod: &list.Items[i]}) {
						return
					}
				}
				if seen && len(list.Items) == 0 {
					send(change{})
					return
				}
				var more bool
				if more, err = f.pass(ctx, list.ResourceVersion, &seen, send); !more {
					return
				}
			}
			pause := rest.pause(time.Since(begun))
			if err == nil {
				failures = 0
			} else if failures++; failures == 5 || errors.Is(err, &fault.Fault{Code: fault.NotAuthorised}) {
				send(change{err: err})
				return
			} else { // an API server that is started anew is away for some seconds
				pause = time.Duration(failures) * time.Second
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// backoff is the pause before a watch that has ended is begun anew: longer each time where
// something ends them all at once, such as a proxy, and short again after a calm one.
type backoff struct{ next time.Duration }

const (
	pauseLeast = 50 * time.Millisecond
	pauseMost  = 5 * time.Second
	// calm is how long a watch lasts that ends as servers end them.
	calm = 30 * time.Second
)

func (b *backoff) pause(lasted time.Duration) time.Duration {
	if lasted >= calm {
		b.next = 0
	}
	now := max(b.next, pauseLeast)
	b.next = min(2*now, pauseMost)
	return now
}

// pass sends what one watch tells. Not more: nobody wants to hear any further.
func (f *follower) pass(ctx context.Context, since string, seen *bool, send func(change) bool) (more bool, err error) {
	w, err := f.watch(ctx, f.name, since)
	if err != nil {
		return true, err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		switch {
		case event.Type == watch.Error || !ok:
			return true, nil // it is too old: list anew
		case event.Type == watch.Deleted:
			if !ended(pod) {
				pod = nil
			}
		}
		*seen = true
		if !send(change{pod: pod}) {
			return false, nil
		}
	}
	return true, nil
}

// status is that of the container whose command is judged. Nil: not known yet.
func status(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; s.Name == containerName {
			return s
		}
	}
	return nil
}

func started(pod *corev1.Pod) bool {
	s := status(pod)
	return s != nil && s.State.Running != nil
}

func ended(pod *corev1.Pod) bool {
	s := status(pod)
	return s != nil && s.State.Terminated != nil || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// describe says in a few words how far a pod is.
func describe(pod *corev1.Pod) string {
	if s := status(pod); s != nil {
		switch {
		case s.State.Terminated != nil:
			return "ended: " + s.State.Terminated.Reason
		case s.State.Running != nil:
			return "runs on " + pod.Spec.NodeName
		case s.State.Waiting != nil:
			return strings.TrimSuffix("waits: "+s.State.Waiting.Reason+": "+s.State.Waiting.Message, ": ")
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "waits for a node: " + c.Message
		}
	}
	return strings.ToLower(string(pod.Status.Phase))
}

// hopeless is an error for a container that will not begin, whoever waits.
func hopeless(pod *corev1.Pod) error {
	s := status(pod)
	if s == nil || s.State.Waiting == nil {
		return nil
	}
	text := s.State.Waiting.Reason + ": " + s.State.Waiting.Message
	if strings.Contains(text, "QPS exceeded") {
		return nil // the kubelet has many images to pull and comes back to this one
	}
	switch s.State.Waiting.Reason {
	case "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName":
		return fault.New(fault.Filesystem, "pull the image", text).WithField("--image").WithHint("Name an image that the nodes can pull.")
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		f := fault.New(codeOf(text), "create the container", text)
		if strings.Contains(text, "seccomp") {
			f = fault.New(fault.Seccomp, "create the container", text).
				WithHint("The installer puts capsule's filters on a node; --runtime-seccomp takes the container runtime's own.")
		}
		return f
	}
	return nil
}

// codeOf finds the code of an error of capsule's in what a kubelet says.
func codeOf(text string) fault.Code {
	if i := strings.Index(text, "E3003 "); i >= 0 || strings.Contains(text, "no such file or directory") && strings.Contains(text, "exec") {
		return fault.CommandNotFound
	}
	return fault.MonitorFailed
}

// noPod is an error when the job controller says that it gets no pod.
func (f *follower) noPod(ctx context.Context) error {
	events, err := f.events(ctx, "Job", f.name)
	if err != nil {
		return nil // it is only a courtesy: the deadline tells in any case
	}
	for _, e := range events {
		if e.Reason == "FailedCreate" {
			return fault.New(fault.TooManyExecutions, "make the pod", e.Message).
				WithHint("A quota, an admission rule, or a cluster without the RuntimeClass: see --runtime-class.")
		}
	}
	return nil
}

func (f *follower) late(pod *corev1.Pod, running bool) error {
	text := "the job controller has made no pod"
	if pod != nil {
		text = "pod " + pod.Name + ": " + describe(pod)
	}
	if running {
		return fault.New(fault.ShimLost, "wait for the command", text+"; its own limits have passed").
			WithHint("The containerd of the node must hand the annotation run.capsule.verdict on: see pod_annotations in docs/kubernetes.md.")
	}
	return fault.New(fault.SetupTimeout, "wait for the command's start", text).WithField("--start-timeout").WithHint("--start-timeout waits longer.")
}

// verdict finds what the shim has written: whole in the log, without the output in the
// termination message. Only the shim knows the id.
func (f *follower) verdict(ctx context.Context, pod *corev1.Pod) (*spec.Response, error) {
	s := status(pod)
	if s == nil || s.State.Terminated == nil {
		return nil, fault.New(fault.ShimLost, "read the verdict", "the pod ended without its command: "+pod.Status.Reason+": "+pod.Status.Message)
	}
	t := s.State.Terminated
	short := f.find([]byte(t.Message))
	if short != nil && short.Timestamps.Started == nil {
		return short, nil // it never ran, and has no log
	}
	text, err := f.log(ctx, pod.Name, documentMax)
	if whole := f.find(text); whole != nil {
		return whole, nil
	}
	if short != nil {
		why := "the log does not have the verdict"
		if err != nil {
			why = err.Error()
		}
		short.Warnings = append(short.Warnings, "the output is lost: "+why)
		if short.Status == spec.StatusSuccess {
			short.Status, short.Error = spec.StatusError, spec.ErrorFrom(fault.New(fault.OutputCapture, "read the output", why))
		}
		return short, nil
	}
	how := t.Reason + ", exit status " + strconv.Itoa(int(t.ExitCode))
	if t.Reason == "StartError" || t.Reason == "ContainerCannotRun" {
		return nil, fault.New(codeOf(t.Message), "start the command", t.Message)
	}
	return nil, fault.New(fault.ShimLost, "read the verdict", "the container ended ("+how+") without one of capsule's").
		WithHint("A shim that was killed leaves none. If no pod has one: the containerd of the nodes must hand the annotation run.capsule.verdict on (pod_annotations, docs/kubernetes.md).")
}

// find gives the response with our id, the last one.
func (f *follower) find(text []byte) *spec.Response {
	for {
		i := bytes.LastIndex(text, []byte(`{"execution_id":"`+f.id+`"`))
		if i < 0 {
			return nil
		}
		line, _, _ := bytes.Cut(text[i:], []byte("\n"))
		if r, err := spec.DecodeResponse(line); err == nil && r.ExecutionID == f.id {
			return r
		}
		text = text[:i]
	}
}
