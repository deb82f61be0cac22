package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/capsule-run/capsule/supervisor/api"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// report prints the tables, and the deviations.
func (h *harness) report(out io.Writer, took time.Duration) {
	fmt.Fprintf(out, "chaos, seed %d, %d executions at a time, %v\n\n", h.seed, h.load, took.Round(time.Second))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "killed\ttimes\t")
	for _, p := range h.phases() {
		fmt.Fprintf(t, "%s\t%d\t\n", p.name, h.strikes[p.name])
	}
	fmt.Fprintf(t, "capsuled was started\t%d\t\n\n", h.house.starts)
	h.outcomes(t)
	fmt.Fprintln(t, "the daemons said\ttimes\t")
	for _, kind := range []string{api.EventRecovered, api.EventCollected, api.EventLost, api.EventEnded, api.EventUnreadable} {
		fmt.Fprintf(t, "%s\t%d\t\n", kind, h.house.events(kind))
	}
	fmt.Fprintln(t)
	_ = t.Flush() // nothing is done about a table that cannot be printed
	for _, topic := range h.topics {
		fmt.Fprintf(out, "%s: %s\n", topic, h.tally[topic])
	}
	all := h.findings.all()
	if len(all) > 0 {
		fmt.Fprintf(out, "\nend of the log of capsuled:\n%s\n", h.house.lastLines(30))
	}
	fmt.Fprintf(out, "\n%d deviations\n", len(all)) // last, where the end of a long output is all that is kept
	told := map[string]int{}
	for _, f := range all {
		what, _, _ := strings.Cut(f, ",")
		what, _, _ = strings.Cut(what, ":")
		if told[what]++; told[what] <= 20 { // many of a kind hide no other
			fmt.Fprintf(out, "- %s\n", f)
		}
	}
	for what, n := range told {
		if n > 20 {
			fmt.Fprintf(out, "... and %d more: %s\n", n-20, what)
		}
	}
}

// outcomes is the table of executions by kind and what became of them.
func (h *harness) outcomes(t io.Writer) {
	columns := []string{asExpected, lost, killed, never, damaged}
	counts := map[kind]map[string]int{}
	for _, r := range h.ledger.all() {
		r.mu.Lock()
		o := r.outcome
		r.mu.Unlock()
		if o == "" {
			o = "no verdict"
		}
		if counts[r.kind] == nil {
			counts[r.kind] = map[string]int{}
		}
		counts[r.kind][o]++
		if !slices.Contains(columns, o) {
			columns = append(columns, o)
		}
	}
	fmt.Fprintf(t, "executions\t%s\t\n", strings.Join(columns, "\t"))
	for _, k := range []kind{short, long, chatty, forking, hungry, starved, owned, visited, deserted} {
		fmt.Fprintf(t, "%s\t", k)
		for _, c := range columns {
			fmt.Fprintf(t, "%d\t", counts[k][c])
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintln(t)
}
