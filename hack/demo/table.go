package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// table writes rows as their verdicts arrive, at most 100 columns wide.
type table struct {
	w      io.Writer
	colour bool
	count  int
	began  time.Time
}

// newTable uses colours when w is a terminal and NO_COLOR is not set.
func newTable(w *os.File) *table {
	info, err := w.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && info.Mode()&os.ModeDevice != 0
	return &table{w: w, colour: terminal && os.Getenv("NO_COLOR") == "", began: time.Now()}
}

const columns = "  %-33s %s %-9s %8s %8s  %s\n"

func (t *table) head() {
	fmt.Fprintf(t.w, "\nEach line is one command in a fresh sandbox of its own, and the verdict that came back.\n"+
		"Verdicts are about how it ended: success means by itself, with whatever exit code.\n\n")
	fmt.Fprintf(t.w, columns, "the command", pad("verdict", 12), "ended by", "time", "memory", "what was seen")
	fmt.Fprintln(t.w, "  "+strings.Repeat("-", 96))
}

// row prints one verdict; surprise is what should have been.
func (t *table) row(s show, r spec.Response, surprise string) {
	t.count++
	fmt.Fprintf(t.w, columns, s.title, t.paint(r, surprise != ""), end(r), wall(r), memory(r), clip(seen(s, r), 22))
	if surprise != "" {
		fmt.Fprintf(t.w, "      %s\n", surprise)
		if r.Error != nil {
			fmt.Fprintf(t.w, "      %s %s\n", r.Error.Code, r.Error.Message)
		}
	}
}

// summary ends the table.
func (t *table) summary(ok bool) {
	fmt.Fprintf(t.w, "\n%d sandboxes in %.1f s, and no process, directory or cgroup of them is left.\n", t.count, time.Since(t.began).Seconds())
	if !ok {
		fmt.Fprintln(t.w, "Not every verdict was the expected one on this host; see the lines above.")
	}
}

// exchange shows one request and its response as a user would see them.
func (t *table) exchange(request string, response []byte) {
	fmt.Fprintf(t.w, "\nOne of them in full:\n\n  echo '%s' | bin/capsulectl run --json\n\n", request)
	for _, line := range fold(strings.TrimSpace(string(response)), 98) {
		fmt.Fprintln(t.w, "  "+line)
	}
}

// paint is the verdict: the reason where it says more than the status.
func (t *table) paint(r spec.Response, surprising bool) string {
	word := string(r.Status)
	switch r.Termination.Reason {
	case spec.ReasonExited, spec.ReasonSignaled, spec.ReasonTimeoutWall:
	case spec.ReasonSetupFailed:
		if r.Error != nil {
			word += " " + r.Error.Code
		}
	default:
		word += ", " + strings.TrimSuffix(string(r.Termination.Reason), "_limit") // no room for more
	}
	word = pad(word, 12)
	if !t.colour {
		return word
	}
	code := "33" // yellow: capsule ended it
	switch {
	case surprising:
		code = "1;31"
	case r.Status == spec.StatusSuccess:
		code = "32"
	case r.Status == spec.StatusError:
		code = "35"
	}
	return "\x1b[" + code + "m" + word + "\x1b[0m"
}

// end is the exit code or the signal.
func end(r spec.Response) string {
	switch {
	case r.Signal != nil:
		return signalName(syscall.Signal(*r.Signal))
	case r.ExitCode != nil:
		return fmt.Sprintf("exit %d", *r.ExitCode)
	}
	return "-"
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGSYS:
		return "SIGSYS"
	}
	return fmt.Sprintf("signal %d", int(s))
}

func wall(r spec.Response) string {
	if r.Metrics.WallTimeMS == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f ms", *r.Metrics.WallTimeMS)
}

func memory(r spec.Response) string {
	if r.Metrics.MaxMemoryBytes == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f MiB", float64(*r.Metrics.MaxMemoryBytes)/(1<<20))
}

// seen is one line of what the command showed to the world.
func seen(s show, r spec.Response) string {
	if s.remark != nil {
		return s.remark(r)
	}
	for _, stream := range []string{text(r.Stderr), text(r.Stdout)} {
		if lines := strings.Split(strings.TrimSpace(stream), "\n"); lines[0] != "" {
			last := lines[len(lines)-1]
			// "cp: cannot create '/usr/bin/backdoor': Read-only file system": the end tells.
			if i := strings.LastIndex(last, ": "); i >= 0 {
				last = last[i+2:]
			}
			return last
		}
	}
	if r.Error != nil {
		return r.Error.Message
	}
	return ""
}

// fold breaks a JSON document into lines of at most width columns, after
// commas that separate members; it stays the same document.
func fold(document string, width int) []string {
	var lines []string
	quoted, start, last := false, 0, 0
	for i := 0; i < len(document); i++ {
		switch c := document[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			if i+1-start > width && last > start {
				lines = append(lines, document[start:last])
				start = last
			}
			last = i + 1
		}
	}
	if len(document)-start > width && last > start {
		lines = append(lines, document[start:last])
		start = last
	}
	return append(lines, document[start:])
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-len(s))) }

// clip keeps the line within n columns.
func clip(s string, n int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
