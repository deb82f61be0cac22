package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

// stepping used one core for half a second, then slept, and grew from 1 to 4 MiB.
func stepping() *api.Details {
	r := &spec.Response{Status: spec.StatusSuccess, Metrics: spec.Metrics{MaxMemoryBytes: ptr(int64(5 << 20)), WallTimeMS: ptr(1000.0), CPUTimeMS: ptr(500.0)}}
	line := &spec.Timeline{IntervalMS: 100}
	for i := range int64(10) {
		line.Points = append(line.Points, spec.Point{AtMS: 100 * (i + 1), MemoryBytes: ptr((1 + i/3) << 20), CPUTimeMS: ptr(float64(min(i+1, 5)) * 100)})
	}
	r.Timeline = line
	return &api.Details{Summary: api.Summary{ID: idA, Status: "success", Command: []string{"x"}}, Response: r, Request: spec.Default()}
}

func TestPlot(t *testing.T) {
	const want = `
  4MiB |                  ##
       |            ########
       |            ########
       |      ##############
       |####################
       |####################
     0 +--------------------
  100% |##########
       |##########
       |##########
       |##########
       |##########
       |##########
     0 +--------------------
        0                1 s
`
	var have strings.Builder
	for _, line := range plot(stepping(), 20+plotMargin, false) {
		if strings.ContainsAny(line, "|+") || strings.HasPrefix(line, "  ") {
			have.WriteString("\n" + strings.TrimPrefix(line, "   "))
		}
	}
	if strings.Trim(have.String(), "\n") != strings.Trim(want, "\n") {
		t.Errorf("have\n%s\nwant\n%s", have.String(), want)
	}
	text := strings.Join(plot(stepping(), 0, true), "\n")
	for _, part := range []string{"memory, peak 5MiB of 256MiB", "500 ms in all", "processes and threads: not measured", "█"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	for _, columns := range []int{0, 1, 40, 500} {
		for _, line := range plot(stepping(), columns, true) {
			if n := utf8.RuneCountInString(line); n > max(columns, plotColumns) || strings.Contains(line, "\x1b") {
				t.Errorf("%d columns: %q has %d", columns, line, n)
			}
		}
	}
}

// TestPlotOfLittle draws what barely is: one point, nothing in use, no line.
func TestPlotOfLittle(t *testing.T) {
	d := stepping()
	d.Response.Timeline.Points = []spec.Point{{AtMS: 100, MemoryBytes: ptr(int64(0)), Pids: ptr(int64(0))}}
	if text := strings.Join(plot(d, 60, true), "\n"); strings.Contains(text, "█") || !strings.Contains(text, "0B |") {
		t.Errorf("nothing was in use:\n%s", text)
	}
	d.Response.Timeline = nil
	if text := strings.Join(plot(d, 60, true), "\n"); !strings.Contains(text, "there is no time line") {
		t.Error(text)
	}
	d.Response = nil
	_ = plot(d, 60, true)
	for filled, want := range map[float64]string{-1: " ", 0: " ", 0.001: "▁", 0.5: "▄", 0.99: "█", 1: "█", 7: "█"} {
		if have := mark(filled, true); have != want {
			t.Errorf("%v: %q, want %q", filled, have, want)
		}
	}
}

func TestStatsPlot(t *testing.T) {
	b := newBench("")
	b.supervisor.add(idA, stepping().Response, "x")
	if code := b.main([]string{"stats", "--plot", "aaaa1", "--address", "/there"}); code != 0 || !strings.Contains(b.out.String(), "#") && !strings.Contains(b.out.String(), "█") {
		t.Errorf("exit %d: %s%s", code, b.out.String(), b.errOut.String())
	}
	b = newBench("")
	b.supervisor.add(idA, stepping().Response, "x")
	if code := b.main([]string{"stats", "--plot", "-o", "json", idA, "--address", "/there"}); code != 0 || !strings.Contains(b.out.String(), `"timeline":{"interval_ms":100,`) {
		t.Errorf("exit %d: %s%s", code, b.out.String(), b.errOut.String())
	}
	b = newBench("")
	if code := b.main([]string{"stats", "--plot", "--address", "/there"}); code != 125 || !strings.Contains(b.errOut.String(), "needs an execution") {
		t.Errorf("exit %d: %s", code, b.errOut.String())
	}
}
