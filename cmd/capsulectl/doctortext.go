package main

import (
	"strings"

	"github.com/capsule-run/capsule/shim/doctor"
)

// doctorText is the report for people. What is wrong stands last, so that it is
// what a terminal shows.
func doctorText(r *doctor.Report) string {
	var b strings.Builder
	b.WriteString("Linux " + r.Kernel + ", " + r.Shim + "\n")
	for i := range r.Users {
		examinationText(&b, &r.Users[i])
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func examinationText(b *strings.Builder, x *doctor.Examination) {
	as := ""
	if x.Rootless {
		as = ", rootless"
	}
	b.WriteString("\n" + x.User + as + ", control groups: " + x.CgroupMode + ": " + string(x.State) + "\n")
	width := 0
	for i := range x.Checks {
		width = max(width, len(x.Checks[i].Name))
	}
	fixed := map[string]string{} // commands, to the check that shows them
	for _, state := range []doctor.State{doctor.Works, doctor.Degraded, doctor.Blocked} {
		for i := range x.Checks {
			if x.Checks[i].State == state {
				checkText(b, &x.Checks[i], width, fixed)
			}
		}
	}
	if x.Left != "" {
		b.WriteString("  left behind: " + strings.TrimSpace(x.Left) + "\n")
	}
}

func checkText(b *strings.Builder, c *doctor.Check, width int, fixed map[string]string) {
	line := "  " + pad(string(c.State), 9) + " " + pad(string(c.Kind), 6) + pad(c.Name, width+2)
	if c.Code != "" {
		line += c.Code + " "
	}
	b.WriteString(strings.TrimRight(line+printable(c.Detail), " ") + "\n")
	if c.By != "" && !strings.Contains(c.Detail, c.By) {
		b.WriteString("            by   " + printable(c.By) + "\n")
	}
	commands := strings.Join(c.Fix, "\n")
	if shown, ok := fixed[commands]; ok && commands != "" {
		b.WriteString("            fix  as for " + shown + "\n")
		return
	}
	fixed[commands] = c.Name
	for _, fix := range c.Fix {
		b.WriteString("            fix  " + printable(fix) + "\n")
	}
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-len(s)))
}
