package main

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// metrics counts events and shows the supervisor's state when asked.
type metrics struct {
	registry *prometheus.Registry

	started, oom, recovered, collected, lost, unreadable, removed prometheus.Counter

	ended   *prometheus.CounterVec // by status and reason
	refused *prometheus.CounterVec // by code
	startup prometheus.Histogram
	phases  *prometheus.HistogramVec // by phase
}

// infoTime is how long one scrape may ask the supervisor.
const infoTime = 5 * time.Second

// newMetrics makes all of them. info is asked at every scrape.
func newMetrics(version string, info func(context.Context) (*api.Info, error), connections func() int, pool func() supervisor.PoolStats) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	m.started = counter("capsule_executions_started_total", "Executions whose shim was started.")
	m.oom = counter("capsule_executions_oom_total", "Executions that ended because they were out of memory.")
	m.recovered = counter("capsule_executions_recovered_total", "Living executions taken over at a start.")
	m.collected = counter("capsule_executions_collected_total", "Results found of executions that ended while no daemon watched.")
	m.lost = counter("capsule_executions_lost_total", "Executions whose shim died without a result.")
	m.unreadable = counter("capsule_records_unreadable_total", "Damaged records that were found.")
	m.removed = counter("capsule_executions_removed_total", "Ended executions that were removed from the history.")
	m.ended = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "capsule_executions_ended_total", Help: "Executions that ended, by status and reason."}, []string{"status", "reason"})
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "capsule_executions_refused_total", Help: "Executions that were refused, by code."}, []string{"code"})
	// 250 us to 8 s: a start takes a few milliseconds.
	buckets := prometheus.ExponentialBuckets(0.00025, 2, 16)
	m.startup = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "capsule_startup_seconds", Help: "Time from the shim's acceptance of the request to execve.", Buckets: buckets})
	m.phases = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "capsule_startup_phase_seconds", Help: "Time of each phase of a start.",
		Buckets: prometheus.ExponentialBuckets(0.0000625, 2, 18)}, []string{"phase"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "capsule_build_info", Help: "Always 1; the label is the version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(m.ended, m.refused, m.startup, m.phases, build,
		&state{info: info, connections: connections, pool: pool},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// count takes note of an event. ended: it tells of the end of an execution for
// the first time.
func (m *metrics) count(e *api.Event, ended bool) {
	switch e.Type {
	case api.EventStarted:
		m.started.Inc()
	case api.EventRecovered:
		m.recovered.Inc()
	case api.EventCollected:
		m.collected.Inc()
	case api.EventLost:
		m.lost.Inc()
	case api.EventUnreadable:
		m.unreadable.Inc()
	case api.EventRemoved:
		m.removed.Inc()
	}
	if ended {
		m.end(e)
	}
}

// end takes note of an outcome.
func (m *metrics) end(e *api.Event) {
	reason := e.Attributes["reason"]
	m.ended.WithLabelValues(e.Attributes["status"], reason).Inc()
	if reason == "oom" {
		m.oom.Inc()
	}
	if us, err := strconv.ParseInt(e.Attributes["startup_us"], 10, 64); err == nil {
		m.startup.Observe(float64(us) / 1e6)
	}
	var phases map[string]int64
	if json.Unmarshal([]byte(e.Attributes["startup_phases_us"]), &phases) == nil {
		for phase, us := range phases {
			m.phases.WithLabelValues(phase).Observe(float64(us) / 1e6)
		}
	}
}

// state is what is true when somebody asks, and not counted.
type state struct {
	info        func(context.Context) (*api.Info, error)
	connections func() int
	pool        func() supervisor.PoolStats
}

// poolNumber is one number of the prepared sandboxes.
type poolNumber struct {
	name, help string
	kind       prometheus.ValueType
	of         func(supervisor.PoolStats) float64
}

func poolNumbers() []poolNumber {
	return []poolNumber{
		{"capsule_pool_ready", "Prepared sandboxes that wait for an execution.", prometheus.GaugeValue, func(p supervisor.PoolStats) float64 { return float64(p.Ready) }},
		{"capsule_pool_templates", "Kinds of sandboxes that are prepared.", prometheus.GaugeValue, func(p supervisor.PoolStats) float64 { return float64(p.Templates) }},
		{"capsule_pool_hits_total", "Executions that ran in a prepared sandbox.", prometheus.CounterValue, func(p supervisor.PoolStats) float64 { return float64(p.Hits) }},
		{"capsule_pool_unfit_total", "Executions that wanted another sandbox than was ready.", prometheus.CounterValue, func(p supervisor.PoolStats) float64 { return float64(p.Unfit) }},
		{"capsule_pool_misses_total", "Executions for which none was ready.", prometheus.CounterValue, func(p supervisor.PoolStats) float64 { return float64(p.Misses) }},
		{"capsule_pool_prepared_total", "Sandboxes that were prepared.", prometheus.CounterValue, func(p supervisor.PoolStats) float64 { return float64(p.Prepared) }},
		{"capsule_pool_failed_total", "Attempts to prepare one that failed.", prometheus.CounterValue, func(p supervisor.PoolStats) float64 { return float64(p.Failed) }},
		{"capsule_pool_prepare_seconds_total", "Time that the preparation of all took.", prometheus.CounterValue, func(p supervisor.PoolStats) float64 { return p.Spent.Seconds() }},
	}
}

// gauge is one number of Info.
type gauge struct {
	name, help string
	of         func(*api.Info) float64
}

// gauges lists them.
func gauges() []gauge {
	return []gauge{
		{"capsule_executions_running", "Executions that run.", func(i *api.Info) float64 { return float64(i.Running) }},
		{"capsule_executions_queued", "Executions that wait for their turn: the length of the queue.", func(i *api.Info) float64 { return float64(i.Queued) }},
		{"capsule_executions_limit", "Executions that may run at a time; 0: any number.", func(i *api.Info) float64 { return float64(i.MaxConcurrent) }},
		{"capsule_queue_limit", "Executions that may wait.", func(i *api.Info) float64 { return float64(i.MaxQueued) }},
		{"capsule_memory_reserved_bytes", "Sum of the memory limits of those that run.", func(i *api.Info) float64 { return float64(i.MemoryInUse) }},
		{"capsule_memory_budget_bytes", "What that sum may be; 0: anything.", func(i *api.Info) float64 { return float64(i.MemoryBudget) }},
		{"capsule_history_executions", "Ended executions in the history.", func(i *api.Info) float64 { return float64(i.History) }},
		{"capsule_history_bytes", "Bytes of the ended executions in the history.", func(i *api.Info) float64 { return float64(i.HistoryBytes) }},
		{"capsule_draining", "1 while new executions are refused because this daemon is about to end.", func(i *api.Info) float64 {
			if i.Draining {
				return 1
			}
			return 0
		}},
	}
}

const connectionsName, connectionsHelp = "capsule_connections", "Connections to the API that are open."

// Describe implements prometheus.Collector.
func (s *state) Describe(c chan<- *prometheus.Desc) {
	for _, g := range gauges() {
		c <- prometheus.NewDesc(g.name, g.help, nil, nil)
	}
	for _, n := range poolNumbers() {
		c <- prometheus.NewDesc(n.name, n.help, nil, nil)
	}
	c <- prometheus.NewDesc(connectionsName, connectionsHelp, nil, nil)
}

// Collect implements prometheus.Collector.
func (s *state) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), infoTime)
	defer cancel()
	info, err := s.info(ctx)
	for _, g := range gauges() {
		desc := prometheus.NewDesc(g.name, g.help, nil, nil)
		if err != nil {
			c <- prometheus.NewInvalidMetric(desc, err) // not measured is not zero
			continue
		}
		c <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, g.of(info))
	}
	pool := s.pool()
	for _, n := range poolNumbers() {
		c <- prometheus.MustNewConstMetric(prometheus.NewDesc(n.name, n.help, nil, nil), n.kind, n.of(pool))
	}
	c <- prometheus.MustNewConstMetric(prometheus.NewDesc(connectionsName, connectionsHelp, nil, nil),
		prometheus.GaugeValue, float64(s.connections()))
}
