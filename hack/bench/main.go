// Bench measures what a sandbox costs, against a bare process and other
// sandboxes: the time of one execution, executions per second, memory, output,
// and what a program inside loses. It prints a report in Markdown.
//
// Every round runs each way once, in a fresh random order, so that whatever else
// the machine does falls on all of them alike. Read the medians and the ratios
// within one run; numbers of different runs do not compare.
//
//	go run ./hack/bench [-n 200] [-bin bin] [-sections latency,throughput,memory,output,overhead]
//	                    [-only name,name] [-seconds 1] [-live 100] [-docs docs] [-json]
//
// With -scaling it measures instead how cost grows with the number of live
// sandboxes, finished records, binds, bytes of output and clients:
//
//	go run ./hack/bench -scaling live,records,binds,bytes,clients [-bin bin] [-docs docs]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/supervisor/bench"
)

// settings are the flags.
type settings struct {
	rounds   int
	bin      string
	sections string
	only     string
	seconds  float64
	live     int
	docs     string
	curves   string
	asJSON   bool
}

// results are what was measured; a section that was not asked for is nil.
type results struct {
	Host       host                        `json:"host"`
	Rounds     int                         `json:"rounds"`
	Seconds    float64                     `json:"seconds_per_rate"`
	Latency    []bench.Latency             `json:"latency,omitempty"`
	Phases     map[string]map[string]int64 `json:"phases_us,omitempty"` // by way and phase, medians
	Throughput []bench.Throughput          `json:"throughput,omitempty"`
	Memory     *memory                     `json:"memory,omitempty"`
	Output     []outputRow                 `json:"output,omitempty"`
	Overhead   []overheadRow               `json:"overhead,omitempty"`
	Peers      []peerNote                  `json:"peers"`
}

const allCurves = "live,records,binds,bytes,clients"

const allSections = "latency,throughput,memory,output,overhead"

func main() {
	var s settings
	flag.IntVar(&s.rounds, "n", 200, "rounds of the latency section; every round runs each way once")
	flag.StringVar(&s.bin, "bin", "bin", "directory of the programs")
	flag.StringVar(&s.sections, "sections", allSections, "what to measure")
	flag.StringVar(&s.only, "only", "", "comma-separated names of ways to run, default all; the first way always runs")
	flag.Float64Var(&s.seconds, "seconds", 1, "time for each way and number of clients in the throughput section")
	flag.IntVar(&s.live, "live", 100, "sandboxes that live at once in the memory section")
	flag.StringVar(&s.docs, "docs", "", "directory of documents: write the report into its performance.md and performance.svg")
	flag.StringVar(&s.curves, "scaling", "", "measure how cost grows instead: any of "+allCurves+"; -docs writes scaling.md then")
	flag.BoolVar(&s.asJSON, "json", false, "print JSON instead of the report")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	if s.rounds < 1 || s.seconds <= 0 || s.live < 1 || flag.NArg() > 0 {
		return errors.New("-n, -seconds and -live must be above 0, and every setting is a flag")
	}
	for _, name := range strings.Split(s.sections, ",") {
		if !slices.Contains(strings.Split(allSections, ","), name) {
			return fmt.Errorf("-sections: %q is none of %s", name, allSections)
		}
	}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	// What a daemon leaves becomes our child, so that its processor time and its
	// processes are seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	f, err := newField(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if s.curves != "" {
		return scaling(ctx, s, f)
	}
	r, err := measure(ctx, s, f)
	if err != nil {
		return err
	}
	if s.asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	report := r.markdown()
	fmt.Print(report)
	if s.docs == "" {
		return nil
	}
	return errors.Join(insert(filepath.Join(s.docs, "performance.md"), report), os.WriteFile(filepath.Join(s.docs, "performance.svg"), []byte(r.chart()), 0o644))
}

// measure runs the sections that are wanted.
func measure(ctx context.Context, s settings, f *field) (*results, error) {
	r := &results{Rounds: s.rounds, Seconds: s.seconds, Peers: f.notes}
	want := strings.Split(s.sections, ",")
	before := loadAverage()
	steps := []struct {
		name string
		run  func() error
	}{
		{"latency", func() (err error) {
			r.Latency, err = bench.Latencies(ctx, f.ways, s.rounds)
			r.Phases = f.phaseMedians()
			return err
		}},
		{"throughput", func() (err error) {
			r.Throughput, err = bench.Throughputs(ctx, f.ways, []int{1, 2, 4, 8}, time.Duration(s.seconds*float64(time.Second)))
			return err
		}},
		{"memory", func() (err error) { r.Memory, err = f.memory(ctx, s.live); return err }},
		{"output", func() (err error) { r.Output, err = f.output(ctx); return err }},
		{"overhead", func() (err error) { r.Overhead, err = f.overhead(ctx); return err }},
	}
	for _, step := range steps {
		if !slices.Contains(want, step.name) {
			continue
		}
		began := time.Now()
		if err := step.run(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %.0f s\n", step.name, time.Since(began).Seconds())
	}
	r.Host = describeHost()
	r.Host.LoadBefore, r.Host.LoadAfter = before, loadAverage()
	return r, nil
}
