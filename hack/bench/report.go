package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/capsule-run/capsule/supervisor/bench"
)

// A document keeps what people wrote outside of these lines.
const (
	beginMark = "<!-- measured: begin; written by hack/bench -->\n"
	endMark   = "<!-- measured: end -->\n"
)

// insert replaces what stands between the marks of a document.
func insert(path, report string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q", path, beginMark, endMark)
	}
	return os.WriteFile(path, []byte(before+beginMark+"\n"+report+"\n"+endMark+after), 0o644)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

// markdown is the report.
func (r *results) markdown() string {
	var b strings.Builder
	b.WriteString(r.Host.text())
	r.latencyText(&b)
	r.phaseText(&b)
	r.throughputText(&b)
	r.memoryText(&b)
	r.outputText(&b)
	r.overheadText(&b)
	b.WriteString("\n### The other sandboxes\n\nEach is asked for what capsule does by default, as far as it can: the same program, the host's system directories\nread-only, its own namespaces, and limits where it has them.\n\n| | version | does not do |\n|---|---|---|\n")
	for _, n := range r.Peers {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", n.Name, n.Version, n.Lacks)
	}
	return b.String()
}

func (r *results) latencyText(b *strings.Builder) {
	if r.Latency == nil {
		return
	}
	fmt.Fprintf(b, "\n### One execution\n\nMilliseconds from the request to the complete result, %d rounds, each way once a round in random order. The ratios are to\nthe median of the bare process.\n\n", r.Rounds)
	b.WriteString("| | walls | min | p50 | p90 | p99 | p50 ratio | p99 ratio |\n|---|---|---:|---:|---:|---:|---:|---:|\n")
	for _, l := range r.Latency {
		if l.Count == 0 {
			fmt.Fprintf(b, "| %s | %s | | | | | | %s |\n", l.Name, l.Walls, l.Absent)
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | **%.1f** | %.1f |\n", l.Name, l.Walls, ms(l.Min), ms(l.P50), ms(l.P90), ms(l.P99), l.Ratio, l.RatioP99)
	}
}

// phaseText shows where the time of a start goes, as the responses tell it.
func (r *results) phaseText(b *strings.Builder) {
	if len(r.Phases) == 0 || r.Latency == nil {
		return
	}
	ways := slices.DeleteFunc(slices.Clone(r.Latency), func(l bench.Latency) bool { return r.Phases[l.Name] == nil })
	names := map[string]bool{}
	b.WriteString("\n### Where the time of a start goes\n\nMicroseconds, medians of what the shim tells in each response (startup_phases_us); startup is their sum with what lies\nbetween them. What is missing to the median above is the client, the daemon, the start of the shim's process and the\nend of the sandbox.\n\n| phase |")
	for _, l := range ways {
		fmt.Fprintf(b, " %s |", l.Name)
		for name := range r.Phases[l.Name] {
			names[name] = true
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(ways)) + "\n")
	first := r.Phases[ways[0].Name]
	sorted := slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		if first[a] != first[b] {
			return int(first[b] - first[a])
		}
		return strings.Compare(a, b)
	})
	for _, name := range sorted {
		fmt.Fprintf(b, "| %s |", name)
		for _, l := range ways {
			if us, ok := r.Phases[l.Name][name]; ok {
				fmt.Fprintf(b, " %d |", us)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
}

func (r *results) throughputText(b *strings.Builder) {
	if r.Throughput == nil {
		return
	}
	fmt.Fprintf(b, "\n### Executions per second\n\nClients that each wait for one execution before the next, %.1f s for each cell, in three pieces that alternate with the other\nways. In parentheses the milliseconds of processor time of one execution: client, daemon, shim, sandbox and command.\n\n| |", r.Seconds)
	var heads []bench.Rate
	for _, t := range r.Throughput {
		if len(t.Rates) > len(heads) {
			heads = t.Rates
		}
	}
	for _, rate := range heads {
		fmt.Fprintf(b, " %d client%s |", rate.Clients, map[bool]string{true: "s"}[rate.Clients > 1])
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(heads)) + "\n")
	for _, t := range r.Throughput {
		fmt.Fprintf(b, "| %s |", t.Name)
		for _, rate := range t.Rates {
			fmt.Fprintf(b, " %.0f (%s) |", rate.PerSecond, ms(rate.CPU))
		}
		if missing := len(heads) - len(t.Rates); missing > 0 {
			fmt.Fprintf(b, "%s %s |", strings.Repeat(" |", missing-1), t.Absent)
		}
		b.WriteString("\n")
	}
}

func (r *results) memoryText(b *strings.Builder) {
	m := r.Memory
	if m == nil {
		return
	}
	fmt.Fprintf(b, "\n### Memory\n\n%d sandboxes live, started one after the other in %.1f s. Proportional sizes (PSS), without the command.\n\n| | MiB |\n|---|---:|\n", m.Live, float64(m.StartMS)/1000)
	mib := func(kib float64) string { return fmt.Sprintf("%.2f", kib/1024) }
	fmt.Fprintf(b, "| shim, each | %s |\n| init, each | %s |\n| capsuled, idle | %s |\n| capsuled, with all of them | %s |\n", mib(m.ShimKiB), mib(m.InitKiB), mib(float64(m.DaemonIdleKiB)), mib(float64(m.DaemonKiB)))
	fmt.Fprintf(b, "| less available on the host, for each sandbox (the kernel's share is in it) | %s |\n", mib(m.HostKiB))
	for _, p := range m.Peers {
		fmt.Fprintf(b, "| %s, each of %d | %s |\n", p.Name, p.Live, mib(p.KiB))
	}
}

func (r *results) outputText(b *strings.Builder) {
	if r.Output == nil {
		return
	}
	b.WriteString("\n### Output\n\nA command writes 1 GiB to stdout; the median of three, start and end included.\n\n| | MiB/s | ratio |\n|---|---:|---:|\n")
	for _, o := range r.Output {
		fmt.Fprintf(b, "| %s | %.0f | %.2f |\n", o.Name, o.MiBPerSecond, o.Ratio)
	}
}

func (r *results) overheadText(b *strings.Builder) {
	if r.Overhead == nil {
		return
	}
	fmt.Fprintf(b, "\n### What a program inside loses\n\nTime on the processor, %d times outside and inside in turns; medians. The last two columns are ratios to\n"+
		"outside of the same program outside, behind a filter and behind a Landlock ruleset that allow everything: what this kernel\n"+
		"takes for having one at all.\n\n| | does | outside, ms | inside, ms | ratio | any filter | any ruleset |\n|---|---|---:|---:|---:|---:|---:|\n", repeats)
	for _, o := range r.Overhead {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %.3f | %.3f | %.3f |\n", o.Name, o.Does, ms(o.Native), ms(o.Sandbox), o.Ratio, o.Filter, o.Landlock)
	}
}
