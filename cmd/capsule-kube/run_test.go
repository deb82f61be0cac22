package main

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/capsule-run/capsule/runtime/task/terms"
	"github.com/capsule-run/capsule/spec"
)

const short = `{"execution_id":"ID","status":"success","termination":{"reason":"exited"},"exit_code":7,"signal":null,` +
	`"output":{"stdout":{"bytes_total":3,"bytes_kept":3,"truncated":false},"stderr":{"bytes_total":0,"bytes_kept":0,"truncated":false}},` +
	`"metrics":{},"timestamps":{"created":"2026-01-01T00:00:00.000000000Z","started":"2026-01-01T00:00:00.000000000Z","completed":"2026-01-01T00:00:01.000000000Z"}}`

var (
	whole   = strings.Replace(short, `"output"`, `"stdout":"abc","stderr":"","output"`, 1)
	waiting = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes are available"}}}
	running = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: containerName, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}
)

func terminated(reason, message string, code int32) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{Name: "injected"}, {Name: containerName,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, Message: message, ExitCode: code}}}}}
}

func stuck(reason, message string) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{Name: containerName,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}}
}

const request = `{"command":["sh","-c","echo $HOME $(x) $$"],"environment":{"A":"$(B)"},"timeout_ms":5000,"resources":{"cpu_quota":0.5}}`

func TestVerdictOfAJob(t *testing.T) {
	s := newServer(t)
	s.states = []corev1.PodStatus{waiting, running, terminated("Error", short, 7)}
	s.output = "an earlier line\n" + whole + "\n"
	r, status, said := call(t, request, "--kubeconfig", s.kubeconfig(t, token), "-v")
	if status != 7 || r.Status != spec.StatusSuccess || r.Stdout == nil || *r.Stdout != "abc" || r.ExecutionID != s.id() {
		t.Errorf("status %d: %s\n%s", status, r.Encode(true), said)
	}
	if !s.deleted || s.job.Namespace != "boxes" {
		t.Errorf("deleted: %v, in %s", s.deleted, s.job.Namespace)
	}
	for _, words := range []string{"waits for a node: 0/1", "runs on", "ended: Error"} {
		if !strings.Contains(said, words) {
			t.Errorf("said nothing of %q:\n%s", words, said)
		}
	}
}

// TestJob checks what the API server is told.
func TestJob(t *testing.T) {
	s := newServer(t)
	s.states, s.output = []corev1.PodStatus{terminated("Completed", short, 0)}, whole
	call(t, request, "--kubeconfig", s.kubeconfig(t, token), "--image", "busybox", "--keep", "--name", "mine")
	pod := s.job.Spec.Template.Spec
	c := pod.Containers[0]
	if s.deleted || s.job.Name != "mine" || *s.job.Spec.BackoffLimit != 0 || pod.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("deleted %v: %+v", s.deleted, s.job.Spec)
	}
	if *pod.RuntimeClassName != "capsule" || *pod.HostUsers || *pod.AutomountServiceAccountToken || !*pod.ShareProcessNamespace ||
		*pod.SecurityContext.RunAsUser != 1000 || *pod.SecurityContext.SeccompProfile.LocalhostProfile != "capsule/default.json" {
		t.Errorf("%+v", pod)
	}
	if c.Image != "busybox" || !slices.Equal(c.Command, []string{"sh", "-c", "echo $$HOME $$(x) $$$$"}) || c.Env[0].Value != "$$(B)" {
		t.Errorf("%+v", c)
	}
	if *c.SecurityContext.AllowPrivilegeEscalation || !*c.SecurityContext.ReadOnlyRootFilesystem || !*c.SecurityContext.RunAsNonRoot ||
		!slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%+v", c.SecurityContext)
	}
	if c.Resources.Limits.Memory().Value() != 256<<20 || c.Resources.Limits.Cpu().MilliValue() != 500 || c.Resources.Requests.Cpu().MilliValue() != 100 {
		t.Errorf("%+v", c.Resources)
	}
	var asked terms.Terms
	if err := json.Unmarshal([]byte(s.job.Spec.Template.Annotations[terms.Annotation]), &asked); err != nil {
		t.Fatal(err)
	}
	if asked.TimeoutMS != 5000 || asked.Container != c.Name || asked.Message != c.TerminationMessagePath || asked.Network || asked.MaxPids != 100 || len(asked.Rlimits) != 4 {
		t.Errorf("%+v", asked)
	}
	for name, text := range map[string]string{"the pod": pod.String(), "the job's name": s.job.Name} {
		if strings.Contains(text, asked.ID) {
			t.Errorf("%s tells the command the id of the verdict", name)
		}
	}
}

// TestNoVerdict checks that nothing but what the shim has written counts as one.
func TestNoVerdict(t *testing.T) {
	forged := strings.ReplaceAll(whole, "ID", "00000000-0000-4000-8000-000000000000")
	started := strings.Replace(short, `"started":"2026-01-01T00:00:00.000000000Z"`, `"started":null`, 1)
	refusedAtStart := strings.Replace(strings.Replace(started, `"success"`, `"error"`, 1), `"exit_code":7`, `"error":{"code":"E3003","message":"no"},"exit_code":null`, 1)
	for name, c := range map[string]struct {
		state  corev1.PodStatus
		output string
		code   string
		status int
	}{
		"forged":           {terminated("Completed", forged, 0), forged, "E6005", 125},
		"nothing":          {terminated("OOMKilled", "", 137), "some output", "E6005", 125},
		"output lost":      {terminated("Completed", short, 7), "", "E3004", 125},
		"never started":    {terminated("StartError", "E3003: exec: \"x\": no such file\n"+refusedAtStart, 128), "", "E3003", 127},
		"no image":         {stuck("ImagePullBackOff", "not found"), "", "E2004", 125},
		"no filter":        {stuck("CreateContainerError", "cannot load seccomp profile"), "", "E2003", 125},
		"evicted":          {corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}, "", "E6005", 125},
		"a verdict's half": {terminated("Completed", short[:len(short)/2], 0), whole[:len(whole)/2], "E6005", 125},
	} {
		s := newServer(t)
		s.states, s.output = []corev1.PodStatus{c.state}, c.output
		r, status, _ := call(t, request, "--kubeconfig", s.kubeconfig(t, token))
		if r.Error == nil || r.Error.Code != c.code || status != c.status || !s.deleted {
			t.Errorf("%s: exit %d, want %s: %s", name, status, c.code, r.Encode(true))
		}
	}
}

func TestNoPod(t *testing.T) {
	s := newServer(t)
	s.events = []corev1.Event{{Reason: "FailedCreate", Message: `RuntimeClass "capsule" not found`}}
	r, _, _ := call(t, request, "--kubeconfig", s.kubeconfig(t, token))
	if r.Error == nil || r.Error.Code != "E4006" || !strings.Contains(r.Error.Message, "RuntimeClass") || !s.deleted {
		t.Errorf("%s", r.Encode(true))
	}
	s = newServer(t)
	s.states, s.output = []corev1.PodStatus{stuck("ImagePullBackOff", "pull QPS exceeded"), terminated("Error", short, 7)}, whole
	if r, status, _ := call(t, request, "--kubeconfig", s.kubeconfig(t, token)); status != 7 {
		t.Errorf("a kubelet that pulls much is no reason to give up: %s", r.Encode(true))
	}
	// A busy machine may not come to tell of the pod in so short a time.
	for timeout := 50 * time.Millisecond; timeout < time.Minute; timeout *= 2 {
		s = newServer(t)
		s.states = []corev1.PodStatus{waiting}
		r, _, _ = call(t, request, "--kubeconfig", s.kubeconfig(t, token), "--start-timeout", timeout.String())
		if r.Error == nil || strings.Contains(r.Error.Message, "0/1 nodes") {
			break
		}
	}
	if r.Error == nil || r.Error.Code != "E3008" || !strings.Contains(r.Error.Message, "0/1 nodes") || !s.deleted {
		t.Errorf("%s", r.Encode(true))
	}
}

func TestRefusals(t *testing.T) {
	s := newServer(t)
	there := s.kubeconfig(t, token)
	for _, c := range []struct {
		request, code, field string
		args                 []string
	}{
		{`{}`, "E1002", "/command", nil},
		{`{"command":["a"],"isolation":{"rootfs":"/x"}}`, "E2008", "/isolation/rootfs", nil},
		{`{"command":["a"],"isolation":{"readonly_paths":["/srv"],"seccomp":"audit"}}`, "E2008", "/isolation/readonly_paths", nil},
		{`{"command":["a"],"resources":{"max_output_bytes":5000000}}`, "E1003", "/resources/max_output_bytes", nil},
		{`{"command":["a"],"resources":{"io":{"read_bytes_per_second":1000}}}`, "E4001", "/resources/io", nil},
		{`{"command":["a"],"isolation":{"require":["landlock"]}}`, "E4001", "/isolation/require", nil},
		{request, "E1001", "", []string{"--nonsense"}},
		{request, "E1001", "", []string{"--image", ""}},
		{request, "E1004", "", []string{"--profile", "none"}},
		{request, "E1006", "--file", []string{"-f", "/there/is/none"}},
		{request, "E1007", "", []string{"--kubeconfig", "/there/is/none"}},
		{request, "E1007", "", []string{"--kubeconfig", there, "--context", "none"}},
		{request, "E5004", "", []string{"--kubeconfig", s.kubeconfig(t, "wrong")}},
	} {
		r, status, _ := call(t, c.request, c.args...)
		if r.Error == nil || r.Error.Code != c.code || r.Error.Hint == "" || status != 125 {
			t.Errorf("%v %s: exit %d, %s", c.args, c.request, status, r.Encode(true))
			continue
		}
		if text, _ := json.Marshal(r.Error.Details); c.field != "" && !strings.Contains(string(text), c.field) {
			t.Errorf("%v %s: %s does not name %s", c.args, c.request, text, c.field)
		}
	}
	s.refuse = http.StatusForbidden
	if r, _, _ := call(t, request, "--kubeconfig", there); r.Error == nil || r.Error.Code != "E5004" {
		t.Errorf("%s", r.Encode(true))
	}
	s.Close()
	if r, _, _ := call(t, request, "--kubeconfig", there); r.Error == nil || r.Error.Code != "E6004" || r.Termination.Reason != spec.ReasonSetupFailed {
		t.Errorf("%s", r.Encode(true))
	}
}

// TestDryRun prints a job that decodes as one, and asks nobody.
func TestDryRun(t *testing.T) {
	out, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	file := t.TempDir() + "/request.json"
	if err := os.WriteFile(file, []byte(request), 0o600); err != nil {
		t.Fatal(err)
	}
	if status := run([]string{"run", "--dry-run", "--kubeconfig", "/there/is/none", "-f", file}, in, out, os.Stderr); status != 0 {
		t.Fatal(status)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	var job batchv1.Job
	if err := json.Unmarshal(text, &job); err != nil || job.TypeMeta != (metav1.TypeMeta{Kind: "Job", APIVersion: "batch/v1"}) || len(job.Spec.Template.Spec.Containers) != 1 {
		t.Errorf("%v: %s", err, text)
	}
}

// TestBackoff: watches that end at once are begun anew ever more slowly, up to a bound, and
// after a calm one without delay again.
func TestBackoff(t *testing.T) {
	var b backoff
	last := time.Duration(0)
	for i := range 20 {
		now := b.pause(time.Millisecond)
		if now < pauseLeast || now > pauseMost || now < last || now == last && now != pauseMost {
			t.Errorf("pause %d is %v after %v", i, now, last)
		}
		last = now
	}
	if last != pauseMost {
		t.Errorf("in the end it is %v", last)
	}
	if now := b.pause(calm); now != pauseLeast {
		t.Errorf("after a calm watch it is %v", now)
	}
}

// TestWatchesThatEnd: a server, or a proxy before it, that ends each watch at once is asked
// for the end of the pod all the same.
func TestWatchesThatEnd(t *testing.T) {
	s := newServer(t)
	s.states, s.output = []corev1.PodStatus{waiting, waiting, running, running, running, terminated("Error", short, 7)}, whole
	if r, status, _ := call(t, request, "--kubeconfig", s.kubeconfig(t, token)); status != 7 || s.watches != len(s.states) {
		t.Errorf("exit %d after %d watches: %s", status, s.watches, r.Encode(true))
	}
}
