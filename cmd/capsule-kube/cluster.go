package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/capsule-run/capsule/spec/fault"
)

// cluster is an API server, and the namespace in it.
type cluster struct {
	namespace   string
	jobs, cores rest.Interface
}

// connect reads the kubeconfig as kubectl does: --kubeconfig, else $KUBECONFIG, else
// ~/.kube/config, else the service account of the pod that this runs in.
func (o *options) connect() (*cluster, error) {
	wrong := func(err error) error {
		return fault.Wrap(fault.ConfigFile, "read kubeconfig", err).WithHint("Name one by --kubeconfig or $KUBECONFIG; in a pod its service account is used.")
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, wrong(err)
	}
	c := &cluster{namespace: o.namespace}
	if c.namespace == "" {
		if c.namespace, _, err = loader.Namespace(); err != nil {
			return nil, wrong(err)
		}
	}
	config.UserAgent = "capsule-kube/" + version
	if c.jobs, err = client(config, "/apis", batchv1.SchemeGroupVersion); err == nil {
		c.cores, err = client(config, "/api", corev1.SchemeGroupVersion)
	}
	if err != nil {
		return nil, wrong(err)
	}
	return c, nil
}

// client speaks of one group of objects.
func client(config *rest.Config, path string, group schema.GroupVersion) (rest.Interface, error) {
	known := runtime.NewScheme()
	if err := errors.Join(batchv1.AddToScheme(known), corev1.AddToScheme(known)); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(known, group)
	own := rest.CopyConfig(config)
	own.APIPath, own.GroupVersion, own.NegotiatedSerializer = path, &group, serializer.NewCodecFactory(known).WithoutConversion()
	return rest.RESTClientFor(own)
}

// create makes the job.
func (c *cluster) create(ctx context.Context, job *batchv1.Job) (*batchv1.Job, error) {
	made := new(batchv1.Job)
	err := c.jobs.Post().Namespace(c.namespace).Resource("jobs").Body(job).Do(ctx).Into(made)
	return made, refused("create the job", err)
}

// remove takes the job and its pod away.
func (c *cluster) remove(name string) error {
	if name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	background := metav1.DeletePropagationBackground
	err := c.jobs.Delete().Namespace(c.namespace).Resource("jobs").Name(name).Body(&metav1.DeleteOptions{PropagationPolicy: &background}).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil
	}
	return refused("delete the job "+name, err)
}

// pods lists those of a job and gives where to watch from.
func (c *cluster) pods(ctx context.Context, job string) (*corev1.PodList, error) {
	list := new(corev1.PodList)
	err := c.cores.Get().Namespace(c.namespace).Resource("pods").Param("labelSelector", batchv1.JobNameLabel+"="+job).Do(ctx).Into(list)
	return list, refused("list the pods of the job", err)
}

// watch tells of every change of the job's pods from a version on.
func (c *cluster) watch(ctx context.Context, job, since string) (watch.Interface, error) {
	w, err := c.cores.Get().Namespace(c.namespace).Resource("pods").Param("labelSelector", batchv1.JobNameLabel+"="+job).
		Param("watch", "1").Param("resourceVersion", since).Watch(ctx)
	return w, refused("watch the pods of the job", err)
}

// events are what was said of an object, the last one last.
func (c *cluster) events(ctx context.Context, kind, name string) ([]corev1.Event, error) {
	list := new(corev1.EventList)
	err := c.cores.Get().Namespace(c.namespace).Resource("events").
		Param("fieldSelector", "involvedObject.kind="+kind+",involvedObject.name="+name).Do(ctx).Into(list)
	return list.Items, refused("list events", err)
}

// log reads what the container has written, at most limit bytes.
func (c *cluster) log(ctx context.Context, pod string, limit int64) ([]byte, error) {
	r, err := c.cores.Get().Namespace(c.namespace).Resource("pods").Name(pod).SubResource("log").Param("container", containerName).Stream(ctx)
	if err != nil {
		return nil, refused("read the log", err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, limit))
	return text, refused("read the log", err)
}

// refused gives what an API server says a code.
func refused(op string, err error) error {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return fault.Wrap(fault.SetupTimeout, op, err)
	case !errors.As(err, &status):
		return fault.Wrap(fault.Unreachable, op, err).WithHint("Is the API server of the kubeconfig there? kubectl cluster-info asks it, too.")
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return fault.Wrap(fault.NotAuthorised, op, err).WithHint("The account needs create and delete of jobs, list and watch of pods, get of pods/log, and list of events.")
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		return fault.Wrap(fault.InvalidValue, op, err)
	case apierrors.IsAlreadyExists(err):
		return fault.Wrap(fault.InvalidValue, op, err).WithField("--name").WithHint("Leave --name out, or delete the job of that name.")
	case apierrors.IsNotFound(err):
		return fault.Wrap(fault.NotFound, op, err)
	case apierrors.IsTooManyRequests(err):
		return fault.Wrap(fault.TooManyExecutions, op, err)
	}
	return fault.Wrap(fault.IO, op, err)
}
