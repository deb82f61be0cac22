package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/capsule-run/capsule/runtime/task/terms"
	"github.com/capsule-run/capsule/spec"
)

const token = "secret-of-the-test"

// apiServer speaks as much of the API as a job needs. Its answers are what a test says.
type apiServer struct {
	*httptest.Server
	// states are those of the job's pod, one after the other.
	states []corev1.PodStatus
	// output is the log of the command's container, in which ID stands for the job's id.
	output string
	// refuse is the status of every answer. 0: none is refused.
	refuse int
	events []corev1.Event

	mu      sync.Mutex
	job     *batchv1.Job
	deleted bool
	watches int
}

func newServer(t *testing.T) *apiServer {
	s := &apiServer{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/batch/v1/namespaces/{ns}/jobs", s.create)
	mux.HandleFunc("DELETE /apis/batch/v1/namespaces/{ns}/jobs/{name}", s.remove)
	mux.HandleFunc("GET /api/v1/namespaces/{ns}/pods", s.pods)
	mux.HandleFunc("GET /api/v1/namespaces/{ns}/pods/{name}/log", s.log)
	mux.HandleFunc("GET /api/v1/namespaces/{ns}/events", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, corev1.EventList{TypeMeta: metav1.TypeMeta{Kind: "EventList", APIVersion: "v1"}, Items: s.events})
	})
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			fail(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
		case s.refuse != 0:
			fail(w, s.refuse, metav1.StatusReasonForbidden)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	answer(w, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code), Message: "the test says no"})
}

func (s *apiServer) create(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	job := new(batchv1.Job)
	if err := json.NewDecoder(r.Body).Decode(job); err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	job.Namespace = r.PathValue("ns")
	s.job = job
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	answer(w, job)
}

func (s *apiServer) remove(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted = s.job != nil && s.job.Name == r.PathValue("name")
	answer(w, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Success"})
}

// id is what the job's annotation says. The caller holds the lock.
func (s *apiServer) id() string {
	var t terms.Terms
	if s.job == nil || json.Unmarshal([]byte(s.job.Spec.Template.Annotations[terms.Annotation]), &t) != nil {
		return ""
	}
	return t.ID
}

func (s *apiServer) pod(i int) *corev1.Pod {
	state := *s.states[i].DeepCopy()
	for c := range state.ContainerStatuses {
		if t := state.ContainerStatuses[c].State.Terminated; t != nil {
			t.Message = strings.ReplaceAll(t.Message, "ID", s.id())
		}
	}
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: s.job.Name + "-abcde", ResourceVersion: fmt.Sprint(i + 1)}, Status: state}
}

// pods lists nothing at first, and tells each state in a watch of its own: servers end
// watches whenever they like.
func (s *apiServer) pods(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Query().Get("labelSelector") != batchv1.JobNameLabel+"="+s.job.Name {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	if r.URL.Query().Get("watch") == "" {
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(s.watches)}}
		if s.watches > 0 {
			list.Items = []corev1.Pod{*s.pod(min(s.watches, len(s.states)) - 1)}
		}
		answer(w, list)
		return
	}
	if s.watches >= len(s.states) {
		s.mu.Unlock()
		<-r.Context().Done() // nothing more happens
		s.mu.Lock()
		return
	}
	answer(w, map[string]any{"type": "ADDED", "object": s.pod(s.watches)})
	s.watches++
}

func (s *apiServer) log(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Query().Get("container") != containerName {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	_, _ = w.Write([]byte(strings.ReplaceAll(s.output, "ID", s.id()))) // the client may be gone
}

// kubeconfig is a file for the server, with its certificate.
func (s *apiServer) kubeconfig(t *testing.T, secret string) string {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	path := filepath.Join(t.TempDir(), "config")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"k","user":"u","namespace":"boxes"}}],
"clusters":[{"name":"k","cluster":{"server":"` + s.URL + `","certificate-authority-data":"` + base64.StdEncoding.EncodeToString(ca) + `"}}],
"users":[{"name":"u","user":{"token":"` + secret + `"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// call runs the program with a request on stdin and gives its document.
func call(t *testing.T, request string, args ...string) (r *spec.Response, status int, diagnostics string) {
	t.Helper()
	dir := t.TempDir()
	open := func(name, text string) *os.File {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	in, out, errs := open("in", request), open("out", ""), open("err", "")
	status = run(append([]string{"run"}, args...), in, out, errs)
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(errs.Name())
	if err != nil {
		t.Fatal(err)
	}
	r, err = spec.DecodeResponse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return r, status, string(said)
}
