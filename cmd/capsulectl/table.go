package main

import (
	"strings"
	"unicode/utf8"
)

// cell is one field of a table; its text is printable already.
type cell struct {
	text  string
	color string // an SGR parameter, empty for none
}

// table is aligned text. Its lines are cut where the terminal ends.
type table struct {
	rows [][]cell
}

// row appends one row of plain cells.
func (t *table) row(texts ...string) {
	cells := make([]cell, len(texts))
	for i, s := range texts {
		cells[i].text = s
	}
	t.rows = append(t.rows, cells)
}

// paint colours one cell of the last row.
func (t *table) paint(column int, color string) { t.rows[len(t.rows)-1][column].color = color }

// lines lays the table out. columns is the width of the terminal, 0 for no
// bound; colors says whether cells may have some.
func (t *table) lines(columns int, colors bool) []string {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	lines := make([]string, len(t.rows))
	for n, row := range t.rows {
		var b strings.Builder
		used := 0
		for i, c := range row {
			if columns > 0 && used >= columns {
				break
			}
			text, pad := c.text, ""
			if columns > 0 {
				text = brief(text, columns-used)
			}
			if i < len(row)-1 {
				pad = strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+2)
			}
			if colors && c.color != "" && text != "" {
				text = "\x1b[" + c.color + "m" + text + "\x1b[0m"
			}
			b.WriteString(text + pad)
			used += widths[i] + 2
		}
		lines[n] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

// printTable prints t to stdout.
func (c *console) printTable(t *table) int {
	columns, _, terminal := c.size(c.stdout)
	return c.print(strings.Join(t.lines(columns, terminal && c.colorful()), "\n"))
}

// colorful says whether the caller's terminal may show colours.
func (c *console) colorful() bool {
	return c.environment("NO_COLOR") == "" && c.environment("TERM") != "dumb"
}
