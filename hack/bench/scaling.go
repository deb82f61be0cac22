package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/capsule-run/capsule/supervisor/bench"
)

// curve is how cost grows with one number.
type curve struct {
	Name  string `json:"name"`
	About string `json:"about"`
	// Of is what grows, and Points its values.
	Of     string   `json:"of"`
	Points []int    `json:"points"`
	Series []series `json:"series"`
	// Stopped is why there are fewer points than were asked for.
	Stopped string `json:"stopped,omitempty"`
}

// series is one cost at every point of a curve.
type series struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
	// Total: the cost is that of all, so that it grows linearly at best; others are
	// of one operation and should not grow at all.
	Total bool `json:"total"`
}

// add appends a value to the series with that name.
func (c *curve) add(name string, total bool, value float64) {
	i := slices.IndexFunc(c.Series, func(s series) bool { return s.Name == name })
	if i < 0 {
		c.Series = append(c.Series, series{Name: name, Total: total})
		i = len(c.Series) - 1
	}
	c.Series[i].Values = append(c.Series[i].Values, value)
}

// tooSmall is a value whose ratio to another says nothing: a share of a CPU that
// is not used, a time of the clock's own grain.
const tooSmall = 0.1

// growth is the exponent k of N^k between the last point and the first one that
// is no less than a tenth of it: two points that lie close together say little
// on a machine that does other things.
func (c *curve) growth(s *series) (k float64, ok bool) {
	last := len(s.Values) - 1
	if last < 1 || c.Points[last] == 0 {
		return 0, false
	}
	first := slices.IndexFunc(c.Points, func(n int) bool { return n*10 >= c.Points[last] })
	if first == last {
		first--
	}
	if c.Points[first] == 0 || s.Values[first] < tooSmall || s.Values[last] < tooSmall {
		return 0, false
	}
	return math.Log(s.Values[last]/s.Values[first]) / math.Log(float64(c.Points[last])/float64(c.Points[first])), true
}

// worse tells whether the cost of N of them grows faster than N: the exponent of
// a total is above 1, that of one operation above 0, by more than noise explains.
func (c *curve) worse(s *series) bool {
	const noise = 0.25
	k, ok := c.growth(s)
	linear := 0.0
	if s.Total {
		linear = 1
	}
	return ok && k > linear+noise
}

// scaling measures the curves that are wanted and writes them.
func scaling(ctx context.Context, s settings, f *field) error {
	kinds := []struct {
		name string
		run  func(context.Context, *curve) error
	}{
		{"live", f.liveCurve}, {"records", f.recordsCurve}, {"binds", f.bindsCurve}, {"bytes", f.bytesCurve}, {"clients", f.clientsCurve},
	}
	want := strings.Split(s.curves, ",")
	before := loadAverage()
	var curves []*curve
	for _, name := range want {
		i := slices.IndexFunc(kinds, func(k struct {
			name string
			run  func(context.Context, *curve) error
		}) bool {
			return k.name == name
		})
		if i < 0 {
			return fmt.Errorf("-scaling: %q is none of %s", name, allCurves)
		}
		began := time.Now()
		c := &curve{}
		if err := kinds[i].run(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		curves = append(curves, c)
		fmt.Fprintf(os.Stderr, "%s: %.0f s\n", name, time.Since(began).Seconds())
	}
	h := describeHost()
	h.LoadBefore, h.LoadAfter = before, loadAverage()
	report := scalingText(h, curves)
	fmt.Print(report)
	if s.docs == "" {
		return nil
	}
	return insert(filepath.Join(s.docs, "scaling.md"), report)
}

// scalingText is the report on the curves.
func scalingText(h host, curves []*curve) string {
	var b strings.Builder
	b.WriteString(h.text())
	b.WriteString("\nThe last line of each table is the exponent k of N^k over the last factor of ten: near 0, the cost does not depend on the\nnumber; near 1, it grows with it. **Bold** is what grows faster than it must: more than linearly where the cost is that of\nall together, at all where it is the cost of one operation.\n")
	for _, c := range curves {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| %s |", c.Name, c.About, c.Of)
		for _, s := range c.Series {
			fmt.Fprintf(&b, " %s |", s.Name)
		}
		b.WriteString("\n|---:|" + strings.Repeat("---:|", len(c.Series)) + "\n")
		for i, n := range c.Points {
			fmt.Fprintf(&b, "| %d |", n)
			for _, s := range c.Series {
				if i < len(s.Values) {
					fmt.Fprintf(&b, " %s |", short(s.Values[i]))
				} else {
					b.WriteString(" |")
				}
			}
			b.WriteString("\n")
		}
		b.WriteString("| k |")
		for i := range c.Series {
			s := &c.Series[i]
			k, ok := c.growth(s)
			switch {
			case !ok:
				b.WriteString(" |")
			case c.worse(s):
				fmt.Fprintf(&b, " **%.2f** |", k)
			default:
				fmt.Fprintf(&b, " %.2f |", k)
			}
		}
		b.WriteString("\n")
		if c.Stopped != "" {
			b.WriteString("\n" + c.Stopped + "\n")
		}
	}
	return b.String()
}

// short is a number with three digits that count.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// timed is the median time of n calls, in milliseconds.
func timed(n int, f func() error) (float64, error) {
	samples := make([]time.Duration, n)
	for i := range samples {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		samples[i] = time.Since(start)
	}
	return float64(bench.Median(samples).Microseconds()) / 1000, nil
}
