package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// counted has what a daemon would have counted.
func counted(info func(context.Context) (*api.Info, error)) *metrics {
	m := newMetrics("v9", info, func() int { return 3 }, func() supervisor.PoolStats {
		return supervisor.PoolStats{Ready: 2, Hits: 7, Spent: 1500 * time.Millisecond}
	})
	f := &follower{metrics: m, seen: map[string]struct{}{}, log: slog.New(slog.DiscardHandler)}
	for i, e := range []api.Event{
		{Type: api.EventStarted, ExecutionID: "a"},
		{Type: api.EventEnded, ExecutionID: "a", Attributes: map[string]string{"status": "killed", "reason": "oom",
			"startup_us": "3000", "startup_phases_us": `{"clone":900}`}},
		{Type: api.EventCollected, ExecutionID: "a", Attributes: map[string]string{"status": "killed", "reason": "oom"}},
		{Type: api.EventLost, ExecutionID: "b", Attributes: map[string]string{"status": "error", "reason": "shim_lost"}},
		{Type: api.EventEnded, ExecutionID: "b", Attributes: map[string]string{"status": "error", "reason": "shim_lost"}},
		{Type: api.EventRecovered, ExecutionID: "c"},
	} {
		e.Sequence = uint64(i + 1)
		_ = f.take(e) // it gives no error
	}
	return m
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestMetricsText(t *testing.T) {
	m := counted(func(context.Context) (*api.Info, error) {
		return &api.Info{Running: 4, Queued: 2, MemoryInUse: 1024, History: 7, HistoryBytes: 70, Draining: true}, nil
	})
	m.refused.WithLabelValues("E4006").Inc()
	status := healthServing
	s := httptest.NewServer(newHTTP(m.registry, func() (string, []string) { return status, []string{"p"} }, slog.New(slog.DiscardHandler)).Handler)
	defer s.Close()
	code, text := get(t, s.URL+"/metrics")
	if code != http.StatusOK {
		t.Fatal(code, text)
	}
	for _, line := range []string{
		`capsule_build_info{version="v9"} 1`, `capsule_executions_running 4`, `capsule_executions_queued 2`,
		`capsule_memory_reserved_bytes 1024`, `capsule_history_executions 7`, `capsule_history_bytes 70`, `capsule_draining 1`,
		`capsule_connections 3`, `capsule_executions_started_total 1`, `capsule_executions_oom_total 1`,
		`capsule_executions_ended_total{reason="oom",status="killed"} 1`, `capsule_executions_ended_total{reason="shim_lost",status="error"} 1`,
		`capsule_executions_lost_total 1`, `capsule_executions_collected_total 1`, `capsule_executions_recovered_total 1`,
		`capsule_executions_refused_total{code="E4006"} 1`, `capsule_startup_seconds_count 1`,
		"capsule_pool_ready 2", "capsule_pool_hits_total 7", "capsule_pool_misses_total 0", "capsule_pool_prepare_seconds_total 1.5",
		`capsule_startup_seconds_bucket{le="0.004"} 1`, `capsule_startup_phase_seconds_sum{phase="clone"} 0.0009`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	for _, name := range []string{"go_goroutines ", "process_open_fds "} {
		if !strings.Contains(text, name) {
			t.Errorf("no metric %q", name)
		}
	}
	if code, body := get(t, s.URL+"/healthz"); code != http.StatusOK || !strings.Contains(body, `"serving"`) {
		t.Error(code, body)
	}
	status = healthDegraded
	if code, body := get(t, s.URL+"/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `["p"]`) {
		t.Error(code, body)
	}
}

func TestMetricsThatAreNotKnownAreLeftOut(t *testing.T) {
	m := counted(func(context.Context) (*api.Info, error) { return nil, errors.New("unreadable") })
	s := httptest.NewServer(newHTTP(m.registry, nil, slog.New(slog.DiscardHandler)).Handler)
	defer s.Close()
	code, text := get(t, s.URL+"/metrics")
	if code != http.StatusOK || strings.Contains(text, "capsule_executions_running") || !strings.Contains(text, "capsule_executions_started_total 1") {
		t.Error(code, text)
	}
}

func TestHTTPAnswersNothingElse(t *testing.T) {
	m := counted(func(context.Context) (*api.Info, error) { return &api.Info{}, nil })
	h := newHTTP(m.registry, nil, slog.New(slog.DiscardHandler)).Handler
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/metrics", 405}, {"HEAD", "/metrics", 405}, {"DELETE", "/healthz", 405}, {"OPTIONS", "*", 405},
		{"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"GET", "/metrics/x", 404},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, "/", nil)
		r.URL.Path = c.path
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.want)
		}
	}
}
