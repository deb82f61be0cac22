package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/capsule-run/capsule/spec/fault"
)

// Bounds of what somebody may ask over HTTP.
const (
	httpTime    = 10 * time.Second
	httpHeader  = 16 << 10
	httpScrapes = 4
)

// openHTTP makes the socket of --metrics.
func openHTTP(address string, gid int) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixMetrics); ok {
		l, err := listen(path, gid)
		if err != nil {
			return nil, err // and not a listener that is nil
		}
		return l, nil
	}
	host, port, err := net.SplitHostPort(address)
	if host == localhost {
		host = "127.0.0.1" // whatever the resolver says
	}
	var l net.Listener
	if err == nil {
		l, err = net.Listen("tcp", net.JoinHostPort(host, port))
	}
	if err != nil {
		return nil, fault.Wrap(fault.IO, "listen for metrics", err).WithHint("Give --metrics another port.")
	}
	return l, nil
}

// newHTTP answers GET /metrics and GET /healthz, and nothing else.
func newHTTP(registry *prometheus.Registry, well func() (string, []string), log *slog.Logger) *http.Server {
	complaints := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	scrape := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: complaints, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: httpScrapes, Timeout: httpTime / 2,
		DisableCompression: true, // the reader is on this host
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", scrape)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		status, problems := well()
		w.Header().Set("Content-Type", "application/json")
		if status != healthServing {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// A reader that left gets nothing more.
		_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "problems": problems})
	})
	return &http.Server{Handler: onlyGet(mux), ReadTimeout: httpTime, ReadHeaderTimeout: httpTime, WriteTimeout: httpTime,
		IdleTimeout: time.Minute, MaxHeaderBytes: httpHeader, ErrorLog: complaints}
}

// onlyGet refuses HEAD too, which a GET pattern includes.
func onlyGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 0)
		next.ServeHTTP(w, r)
	})
}

// serveHTTP ends when the server is closed.
func serveHTTP(s *http.Server, l net.Listener, log *slog.Logger) {
	if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error("metrics are not served any more", "error", err)
	}
}
