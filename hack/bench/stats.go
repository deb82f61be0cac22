package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// row is a peer's result as JSON shows it. Times are microseconds; null when
// the peer was not measured.
type row struct {
	Name             string           `json:"name"`
	Walls            string           `json:"walls"`
	Command          []string         `json:"command"`
	Absent           string           `json:"absent,omitempty"`
	Samples          int              `json:"samples"`
	MedianUS         *int64           `json:"median_us"`
	P10US            *int64           `json:"p10_us"`
	P90US            *int64           `json:"p90_us"`
	RatioToBare      *float64         `json:"ratio_to_fork_exec"`
	RatioToBwrap     *float64         `json:"ratio_to_bubblewrap"`
	PhasesMedianUS   map[string]int64 `json:"phases_median_us,omitempty"`
	medianForDisplay time.Duration
}

// quantile picks the q-th of the sorted samples, nearest rank.
func quantile[T any](sorted []T, q float64) T {
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// rows sums the samples up.
func rows(peers []*peer) []row {
	medians := map[string]time.Duration{}
	all := make([]row, 0, len(peers))
	for _, p := range peers {
		r := row{Name: p.Name, Walls: p.Walls, Command: p.Argv, Absent: p.Absent, Samples: len(p.samples)}
		if len(p.samples) > 0 {
			sorted := slices.Sorted(slices.Values(p.samples))
			median := quantile(sorted, 0.5)
			medians[p.Name] = median
			r.medianForDisplay = median
			r.MedianUS, r.P10US, r.P90US = us(median), us(quantile(sorted, 0.1)), us(quantile(sorted, 0.9))
		}
		for name, samples := range p.phases {
			if r.PhasesMedianUS == nil {
				r.PhasesMedianUS = map[string]int64{}
			}
			r.PhasesMedianUS[name] = quantile(slices.Sorted(slices.Values(samples)), 0.5)
		}
		all = append(all, r)
	}
	for i := range all {
		r := &all[i]
		r.RatioToBare = ratio(r.medianForDisplay, medians["fork+exec"])
		r.RatioToBwrap = ratio(r.medianForDisplay, medians["bubblewrap"])
	}
	return all
}

func us(d time.Duration) *int64 {
	n := d.Microseconds()
	return &n
}

// ratio is nil when either was not measured.
func ratio(a, b time.Duration) *float64 {
	if a == 0 || b == 0 {
		return nil
	}
	r := float64(a) / float64(b)
	return &r
}

func writeJSON(w io.Writer, rounds int, peers []*peer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{
		"rounds": rounds,
		"host":   host(),
		"rows":   rows(peers),
	})
}

func writeTable(w io.Writer, rounds int, peers []*peer) {
	fmt.Fprintf(w, "\n%d rounds, each peer once a round in random order; milliseconds from fork to exit\n%s\n\n", rounds, host())
	fmt.Fprintf(w, "  %-16s %8s %8s %8s %8s %8s   %s\n", "", "median", "p10", "p90", "x bare", "x bwrap", "around the program")
	all := rows(peers)
	for _, r := range all {
		if r.MedianUS == nil {
			fmt.Fprintf(w, "  %-16s %s\n", r.Name, r.Absent)
			continue
		}
		fmt.Fprintf(w, "  %-16s %8s %8s %8s %8s %8s   %s\n", r.Name, ms(r.MedianUS), ms(r.P10US), ms(r.P90US), times(r.RatioToBare), times(r.RatioToBwrap), r.Walls)
	}
	for _, r := range all {
		if len(r.PhasesMedianUS) > 0 {
			fmt.Fprintf(w, "\n  %s, its own account in microseconds (medians): %s\n", r.Name, phases(r.PhasesMedianUS))
		}
	}
}

func ms(us *int64) string { return fmt.Sprintf("%.2f", float64(*us)/1000) }

func times(r *float64) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *r)
}

// phases lists the longest first.
func phases(m map[string]int64) string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if m[a] != m[b] {
			return int(m[b] - m[a])
		}
		return strings.Compare(a, b)
	})
	parts := make([]string, len(names))
	for i, n := range names {
		parts[i] = fmt.Sprintf("%s %d", n, m[n])
	}
	return strings.Join(parts, ", ")
}

// host is what a reader needs to judge the numbers.
func host() string {
	release := "unknown kernel"
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		var b strings.Builder
		for _, c := range u.Release {
			if c == 0 {
				break
			}
			b.WriteByte(byte(c))
		}
		release = b.String()
	}
	load := "unknown"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(text), " ")
	}
	user := "unprivileged"
	if os.Geteuid() == 0 {
		user = "root"
	}
	return fmt.Sprintf("Linux %s, %s, %d CPUs, load %s, as %s", release, runtime.GOARCH, runtime.NumCPU(), load, user)
}
