package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/supervisor/bench"
)

func sample() *results {
	return &results{
		Rounds: 5, Seconds: 1,
		Latency: []bench.Latency{
			{Name: "fork+exec", Walls: "none", Count: 5, Min: 900 * time.Microsecond, P50: time.Millisecond, P90: 2 * time.Millisecond, P99: 3 * time.Millisecond, Ratio: 1, RatioP99: 3},
			{Name: "capsuled, cold", Walls: "all", Count: 5, Min: time.Millisecond, P50: 4500 * time.Microsecond, P90: 6 * time.Millisecond, P99: 170 * time.Millisecond, Ratio: 4.5, RatioP99: 170},
			{Name: "nsjail", Walls: "some", Absent: "not <installed>"},
		},
		Phases: map[string]map[string]int64{"capsuled, cold": {"startup": 4000, "sandbox": 3000}},
		Throughput: []bench.Throughput{
			{Name: "fork+exec", Rates: []bench.Rate{{Clients: 1, PerSecond: 1000, CPU: time.Millisecond}, {Clients: 2, PerSecond: 2000, CPU: time.Millisecond}}},
			{Name: "nsjail", Absent: "not <installed>"},
		},
	}
}

func TestReport(t *testing.T) {
	text := sample().markdown()
	for _, want := range []string{
		"| capsuled, cold | all | 1.00 | 4.50 | 6.00 | 170.00 | **4.5** | 170.0 |",
		"| nsjail | some | | | | | | not <installed> |",
		"| startup | 4000 |\n| sandbox | 3000 |",
		"| fork+exec | 1000 (1.00) | 2000 (1.00) |",
		"| | 1 client | 2 clients |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	// Every line of a table has as many cells as its head.
	cells := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		if n := strings.Count(line, "|"); cells != 0 && n != cells {
			t.Errorf("%d cells in %q, %d above", n, line, cells)
		}
		cells = strings.Count(line, "|")
	}
}

// TestChart wants a document that parses and shows what was measured.
func TestChart(t *testing.T) {
	text := sample().chart()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if strings.Count(text, "<rect") != 3 || strings.Contains(text, "nsjail") || strings.Contains(text, "NaN") || !strings.Contains(text, "capsuled, cold") {
		t.Errorf("the chart is %s", text)
	}
}

func TestInsertKeepsTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	page := "# Title\n\n" + beginMark + "old\n" + endMark + "after\n"
	for _, report := range []string{"first\n", "second\n"} {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := insert(path, report); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if page = string(text); page != "# Title\n\n"+beginMark+"\n"+report+"\n"+endMark+"after\n" {
			t.Errorf("the page is %q", page)
		}
	}
	if err := os.WriteFile(path, []byte("# No marks\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := insert(path, "x"); err == nil {
		t.Error("a page without marks was written to")
	}
}

// TestGrowth: what is worse than it must be stands out, and nothing else.
func TestGrowth(t *testing.T) {
	c := curve{Name: "Things", Of: "things", Points: []int{0, 10, 100}, Series: []series{
		{Name: "flat", Values: []float64{1, 1, 1.1}},
		{Name: "one grows", Values: []float64{1, 1, 10}},
		{Name: "all", Total: true, Values: []float64{0, 5, 50}},
		{Name: "square", Total: true, Values: []float64{0, 1, 100}},
		{Name: "short", Total: true, Values: []float64{7}},
		{Name: "idle", Total: true, Values: []float64{0, 0.01, 4}},
	}}
	for i, want := range []bool{false, true, false, true, false, false} {
		if s := &c.Series[i]; c.worse(s) != want {
			k, _ := c.growth(s)
			t.Errorf("%s: k %.2f, worse %v", s.Name, k, !want)
		}
	}
	text := scalingText(host{}, []*curve{&c})
	if !strings.Contains(text, "| k | 0.04 | **1.00** | 1.00 | **2.00** | | |") || !strings.Contains(text, "| 100 | 1.10 | 10.0 | 50.0 | 100 | | 4.00 |") {
		t.Errorf("the report is %s", text)
	}
}
