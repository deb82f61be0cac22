package main

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

const statsAbout = `Show what running executions use: on a terminal a table that is refreshed each second
until Ctrl-C, otherwise once. CPU is the share of one core since the sample before, MEM
and PIDS are what is in use now, of the limit; the peaks are the most so far.
With -o json there is one object for each execution, a line each; its cpu_percent is
null in the first sample. WAITED is the share of the time since the sample before in
which one of its tasks waited for a processor, for memory, for a disk.

With --plot it draws memory, CPU and processes over time, of ended executions too: up
to 255 points, from 0.1 s after the start on (monitoring.timeline_ms; later, where a
daemon has many executions).

Usage:
  capsulectl stats [--no-stream] [ID...]
  capsulectl stats --plot ID...

Examples:
  capsulectl stats
  capsulectl stats --no-stream -o json | jq .metrics.cpu_time_ms
  capsulectl stats --no-stream=false -o json > usage.jsonl
  capsulectl stats --plot 3f2a
`

func statsVerb() verb {
	return verb{
		name: "stats", usage: "show what running executions use", args: "[ID...]", most: unbounded,
		about: statsAbout, after: idNote, run: stats,
		options: []option{{name: "no-stream", group: groupFlags, usage: "show it once; =false: go on also when this is no terminal", take: func(k *call, v string) error {
			k.noStreamGiven = true
			return parseSwitch(&k.noStream, v)
		}}, switchOption("plot", 0, "draw the use of resources over time", func(k *call) *bool { return &k.plot })},
	}
}

// The time between two tables, and between the two samples of the first.
const (
	statsInterval = time.Second
	statsFirst    = 250 * time.Millisecond
)

// sample is a reading of the counters.
type sample struct {
	at    time.Time
	stats []api.Stats
}

func stats(ctx context.Context, s *session) (int, error) {
	ids := make([]string, len(s.args))
	for i, given := range s.args {
		id, err := s.resolve(ctx, given)
		if err != nil {
			return 0, err
		}
		ids[i] = id
	}
	_, _, terminal := s.size(s.stdout)
	stream := terminal
	if s.noStreamGiven {
		stream = !s.noStream
	}
	if s.plot {
		return s.statsPlot(ctx, ids, stream, terminal)
	}
	if s.jsonOutput {
		return s.statsLines(ctx, ids, stream)
	}
	return s.statsTables(ctx, ids, stream, terminal)
}

// read reads the counters; of ids, or of all when there are none.
func (s *session) read(ctx context.Context, ids []string) (now sample, err error) {
	err = s.link.persist(ctx, func(to api.Supervisor) (err error) {
		now.stats, err = to.Stats(ctx, ids)
		now.at = time.Now()
		return err
	})
	return now, err
}

// readAgain leaves out those that have ended, which read refuses.
func (s *session) readAgain(ctx context.Context, ids []string) (sample, error) {
	now, err := s.read(ctx, nil)
	if len(ids) > 0 {
		now.stats = slices.DeleteFunc(now.stats, func(x api.Stats) bool { return !slices.Contains(ids, x.ID) })
	}
	return now, err
}

func (s *session) statsLines(ctx context.Context, ids []string, stream bool) (int, error) {
	var before sample
	for read := s.read; ; read = s.readAgain {
		now, err := read(ctx, ids)
		if err != nil {
			return 0, err
		}
		earlier, passed := before.metrics(), now.at.Sub(before.at)
		before = now
		for i := range now.stats {
			x := &now.stats[i]
			line := statsLine{x, cpuShare(earlier[x.ID], x.Metrics, passed)}
			if err := s.jsonLine(line); err != nil {
				return s.unwritten(err), nil
			}
		}
		if !stream || len(ids) > 0 && len(now.stats) == 0 {
			return 0, nil
		}
		if s.sleep(ctx, statsInterval); ctx.Err() != nil {
			return 0, nil
		}
	}
}

func (s *session) statsTables(ctx context.Context, ids []string, stream, terminal bool) (int, error) {
	before, err := s.read(ctx, ids)
	if err != nil {
		return 0, err
	}
	for interval := statsFirst; ; interval = statsInterval {
		if s.sleep(ctx, interval); ctx.Err() != nil {
			return 0, nil
		}
		now, err := s.readAgain(ctx, ids)
		if err != nil {
			return 0, err
		}
		columns, rows, _ := s.size(s.stdout)
		lines := statsTable(before, now, terminal).lines(columns, false)
		text := strings.Join(lines, "\n") + "\n"
		if stream && terminal {
			text = frame(lines, rows)
		}
		if n := s.print(text); n != 0 {
			return n, nil
		}
		if !stream || len(ids) > 0 && len(now.stats) == 0 {
			return 0, nil
		}
		before = now
	}
}

// frame draws over the frame before: home, each line to its end, then the rest
// of the screen. Nothing scrolls, and nothing flickers.
func frame(lines []string, rows int) string {
	if rows > 2 && len(lines) > rows-1 {
		hidden := len(lines) - (rows - 2)
		lines = append(lines[:rows-2:rows-2], "and "+strconv.Itoa(hidden)+" more")
	}
	return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\n\x1b[J"
}

// statsLine is one execution in JSON.
type statsLine struct {
	*api.Stats
	CPUPercent *float64 `json:"cpu_percent"`
}

// metrics are those of a sample by id.
func (s *sample) metrics() map[string]*spec.Metrics {
	all := make(map[string]*spec.Metrics, len(s.stats))
	for i := range s.stats {
		all[s.stats[i].ID] = s.stats[i].Metrics
	}
	return all
}

// statsTable shows the second sample; the CPU share is that since the first.
func statsTable(before, now sample, short bool) *table {
	earlier := before.metrics()
	t := &table{}
	t.row("ID", "CPU", "CPU TIME", "MEM", "MEM PEAK", "PIDS", "PIDS PEAK", "READ/WRITTEN", "THROTTLED", "WAITED", "COMMAND")
	for i := range now.stats {
		x := &now.stats[i]
		m := x.Metrics
		if m == nil {
			m = &spec.Metrics{}
		}
		id := x.ID
		if short {
			id = shortID(id)
		}
		t.row(id, percent(cpuShare(earlier[x.ID], m, now.at.Sub(before.at))), milliseconds(m.CPUTimeMS), memory(x.Memory, x.MemoryLimit), size(m.MaxMemoryBytes),
			pids(x.Pids, x.PidsLimit), pids(m.MaxPids, 0), size(m.IOBytesRead)+"/"+size(m.IOBytesWritten), milliseconds(m.ThrottledMS),
			waited(earlier[x.ID], m, now.at.Sub(before.at)), commandLine(x.Command))
	}
	return t
}

// What was not measured is "-", never 0.

// cpuShare is the percentage of one core between two samples.
func cpuShare(before, now *spec.Metrics, passed time.Duration) *float64 {
	if before == nil || now == nil || before.CPUTimeMS == nil || now.CPUTimeMS == nil || passed <= 0 {
		return nil
	}
	share := max(*now.CPUTimeMS-*before.CPUTimeMS, 0) / (float64(passed) / float64(time.Millisecond)) * 100
	share = math.Round(share*10) / 10
	return &share
}

// waited is "3%/0%/1%", what tasks waited between two samples for a processor,
// for memory and for a disk.
func waited(before, now *spec.Metrics, passed time.Duration) string {
	if before == nil || before.Pressure == nil || now.Pressure == nil || passed <= 0 {
		return "-"
	}
	share := func(before, now *float64) string {
		if before == nil || now == nil {
			return "-"
		}
		return strconv.FormatFloat(max(*now-*before, 0)/(float64(passed)/float64(time.Millisecond))*100, 'f', 0, 64) + "%"
	}
	b, n := before.Pressure, now.Pressure
	return share(b.CPUSomeMS, n.CPUSomeMS) + "/" + share(b.MemorySomeMS, n.MemorySomeMS) + "/" + share(b.IOSomeMS, n.IOSomeMS)
}

func percent(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', 1, 64) + "%"
}

func milliseconds(v *float64) string {
	if v == nil {
		return "-"
	}
	return durationFloat(*v)
}

func size(v *int64) string {
	if v == nil {
		return "-"
	}
	return spec.FormatBytes(*v)
}

// memory is "64MiB/256MiB 25%", as far as it is known.
func memory(v *int64, limit int64) string {
	if v == nil || limit == 0 {
		return size(v)
	}
	return size(v) + "/" + spec.FormatBytes(limit) + " " + strconv.FormatInt(*v*100/limit, 10) + "%"
}

// pids is "3/100", as far as it is known.
func pids(v *int64, limit int64) string {
	text := "-"
	if v != nil {
		text = strconv.FormatInt(*v, 10)
	}
	if limit == 0 {
		return text
	}
	return text + "/" + strconv.FormatInt(limit, 10)
}
