package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"

	"github.com/capsule-run/capsule/supervisor/bench"
)

// Measures of the chart, in pixels.
const (
	chartWidth = 900
	chartLeft  = 270
	chartRight = 60
	barHeight  = 16
	barStep    = 26
	chartTop   = 54
)

// chart draws the latencies: a bar to the median, a line to p99, on a
// logarithmic scale of multiples of the bare process.
func (r *results) chart() string {
	ways := slices.DeleteFunc(slices.Clone(r.Latency), func(l bench.Latency) bool { return l.Count == 0 })
	most := 10.0
	for _, l := range ways {
		most = max(most, l.RatioP99, l.Ratio)
	}
	// Up to the next 1, 2 or 5 of a power of ten.
	ticks := []float64{1}
	for i := 0; ticks[len(ticks)-1] < most; i++ {
		ticks = append(ticks, []float64{2, 5, 10}[i%3]*math.Pow(10, float64(i/3)))
	}
	most = ticks[len(ticks)-1]
	// The bare process has a bar as well: the scale begins below 1.
	const least = 0.5
	x := func(ratio float64) float64 {
		return chartLeft + (chartWidth-chartLeft-chartRight)*math.Log(max(ratio, least)/least)/math.Log(most/least)
	}
	height := chartTop + barStep*len(ways) + 40
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", chartWidth, height, chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWidth, height)
	b.WriteString(`<text x="12" y="20" font-size="15" font-weight="bold">One execution, as a multiple of a bare fork+exec</text>` + "\n")
	fmt.Fprintf(&b, `<text x="12" y="38" fill="#555555">bar: median, line: p99; logarithmic; %d interleaved rounds, Linux %s, %d CPUs</text>`+"\n", r.Rounds, r.Host.Kernel, r.Host.CPUs)
	bottom := chartTop + barStep*len(ways)
	for _, t := range ticks {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#dddddd"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555555">%gx</text>`+"\n", x(t), chartTop-6, x(t), bottom, x(t), bottom+18, t)
	}
	for i, l := range ways {
		y := chartTop + barStep*i
		colour := "#9aa5b1"
		if strings.HasPrefix(l.Name, "capsule") {
			colour = "#2563eb"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, chartLeft-8, y+13, html.EscapeString(l.Name))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, chartLeft, y, x(l.Ratio)-chartLeft, barHeight, colour)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s" stroke-width="2"/>`, x(l.Ratio), y+barHeight/2, x(l.RatioP99), y+barHeight/2, colour)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.1f</text>`+"\n", x(max(l.Ratio, l.RatioP99))+5, y+13, l.Ratio)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
