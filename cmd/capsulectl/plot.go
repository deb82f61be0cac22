package main

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

const (
	plotRows    = 6
	plotColumns = 80 // where there is no terminal
	plotMargin  = 11 // for the scale
)

// statsPlot draws the time lines of executions, ended ones too: on a terminal
// again each second while one of them lives.
func (s *session) statsPlot(ctx context.Context, ids []string, stream, terminal bool) (int, error) {
	if len(ids) == 0 {
		return 0, fault.New(fault.InvalidValue, "read arguments", "--plot needs an execution").WithHint("capsulectl ps -a shows them.")
	}
	for {
		var lines []string
		live := false
		for _, id := range ids {
			d, err := s.known(ctx, id)
			if err != nil {
				return 0, err
			}
			live = live || d.Live()
			if s.jsonOutput {
				if err := s.jsonLine(timelineDocument(d)); err != nil {
					return s.unwritten(err), nil
				}
				continue
			}
			columns, _, _ := s.size(s.stdout)
			if len(lines) > 0 {
				lines = append(lines, "")
			}
			lines = append(lines, plot(d, columns, s.blocks())...)
		}
		if s.jsonOutput {
			return 0, nil
		}
		again := stream && terminal && live
		text := strings.Join(lines, "\n") + "\n"
		if again {
			_, rows, _ := s.size(s.stdout)
			text = frame(lines, rows)
		}
		if n := s.print(text); n != 0 || !again {
			return n, nil
		}
		if s.sleep(ctx, statsInterval); ctx.Err() != nil {
			return 0, nil
		}
	}
}

// known is all that is known of one execution.
func (s *session) known(ctx context.Context, id string) (d *api.Details, err error) {
	err = s.link.persist(ctx, func(to api.Supervisor) (err error) {
		d, err = to.Inspect(ctx, id)
		return err
	})
	return d, err
}

// timelineDocument is a line of `stats --plot -o json`; the time line is null
// when there is none.
func timelineDocument(d *api.Details) map[string]any {
	line := json.RawMessage("null")
	if d.Response != nil {
		var whole struct {
			Timeline json.RawMessage `json:"timeline"`
		}
		if json.Unmarshal(d.Response.Encode(false), &whole) == nil && whole.Timeline != nil {
			line = whole.Timeline
		}
	}
	return map[string]any{"execution_id": d.ID, "status": d.Status, "timeline": line}
}

// blocks tells whether the terminal's character set has eighths of a block:
// every one has by now that is not told to be another.
func (s *session) blocks() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(s.environment(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return s.environment("TERM") != "dumb"
}

// series is one quantity over time.
type series struct {
	title  string
	at     []int64
	values []float64
	// text shows a value of the scale.
	text func(float64) string
}

// plot draws the time line of one execution, columns wide.
func plot(d *api.Details, columns int, blocks bool) []string {
	if columns <= 0 {
		columns = plotColumns
	}
	lines := []string{brief(d.ID+"  "+printable(d.Status)+"  "+commandLine(d.Command), columns)}
	if d.Response == nil || d.Response.Timeline == nil {
		return append(lines, "there is no time line: it ended before the first point, or monitoring is off")
	}
	end := d.Response.Timeline.Points[len(d.Response.Timeline.Points)-1].AtMS
	if m := d.Response.Metrics.WallTimeMS; m != nil {
		end = max(end, int64(*m))
	}
	width := max(columns-plotMargin, 10)
	for _, q := range seriesOf(d.Response, d.Request) {
		if len(q.values) == 0 {
			lines = append(lines, "", q.title+": not measured")
			continue
		}
		lines = append(lines, "", brief(q.title, columns))
		lines = append(lines, q.chart(width, end, blocks)...)
	}
	return append(lines, axis(width, end))
}

// seriesOf are memory, CPU and processes; without values where not measured.
func seriesOf(r *spec.Response, req *spec.Request) []series {
	m := r.Metrics
	memory := series{title: "memory", text: func(v float64) string { return spec.FormatBytes(int64(v)) }}
	cpu := series{title: "CPU, in percent of one core", text: func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) + "%" }}
	pids := series{title: "processes and threads", text: func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) }}
	if m.MaxMemoryBytes != nil {
		memory.title += ", peak " + spec.FormatBytes(*m.MaxMemoryBytes) + of(req)
	}
	if m.CPUTimeMS != nil {
		cpu.title += ", " + durationFloat(*m.CPUTimeMS) + " in all"
	}
	if m.MaxPids != nil {
		pids.title += ", peak " + strconv.FormatInt(*m.MaxPids, 10)
	}
	last, lastCPU := int64(0), 0.0
	for _, p := range r.Timeline.Points {
		memory.add(p.AtMS, float64OfInt(p.MemoryBytes))
		pids.add(p.AtMS, float64OfInt(p.Pids))
		if p.CPUTimeMS != nil && p.AtMS > last {
			share := max(*p.CPUTimeMS-lastCPU, 0) / float64(p.AtMS-last) * 100
			cpu.add(p.AtMS, &share)
			last, lastCPU = p.AtMS, *p.CPUTimeMS
		}
	}
	return []series{memory, cpu, pids}
}

func float64OfInt(n *int64) *float64 {
	if n == nil {
		return nil
	}
	v := float64(*n)
	return &v
}

func (q *series) add(at int64, v *float64) {
	if v != nil {
		q.at, q.values = append(q.at, at), append(q.values, *v)
	}
}

// chart draws the values from 0 to end, each column as high as the highest
// value that falls into it. A value stands for the time since the one before.
func (q *series) chart(width int, end int64, blocks bool) []string {
	columns := make([]float64, width)
	for x := range columns {
		from, to := int64(x)*end/int64(width), (int64(x)+1)*end/int64(width)
		before := int64(0)
		columns[x] = math.NaN()
		for i, at := range q.at {
			if before < max(to, from+1) && at > from && !(columns[x] >= q.values[i]) {
				columns[x] = q.values[i]
			}
			before = at
		}
	}
	top := 0.0
	for _, v := range q.values {
		top = max(top, v)
	}
	lines := make([]string, plotRows)
	for row := range lines {
		label := ""
		if row == 0 {
			label = q.text(top)
		}
		var b strings.Builder
		b.WriteString(strings.Repeat(" ", max(plotMargin-2-utf8.RuneCountInString(label), 0)) + label + " |")
		for _, v := range columns {
			b.WriteString(mark(v/max(top, 1e-9)*plotRows-float64(plotRows-1-row), blocks))
		}
		lines[row] = strings.TrimRight(b.String(), " ")
	}
	return append(lines, strings.Repeat(" ", plotMargin-3)+"0 +"+strings.Repeat("-", width))
}

// mark is a character filled to a part of its height; NaN is not filled. What
// is more than nothing shows.
func mark(filled float64, blocks bool) string {
	if !(filled > 0) {
		return " "
	}
	if !blocks {
		if filled < 0.25 {
			return "."
		}
		return "#"
	}
	eighths := min(max(int(math.Round(filled*8)), 1), 8)
	return string(rune('▁' + eighths - 1))
}

// axis are the times at both ends.
func axis(width int, end int64) string {
	last := durationFloat(float64(end))
	return strings.Repeat(" ", plotMargin) + "0" + strings.Repeat(" ", max(width-1-utf8.RuneCountInString(last), 1)) + last
}
