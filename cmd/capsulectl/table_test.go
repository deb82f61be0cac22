package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/capsule-run/capsule/supervisor/api"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "naïve 漢字": "naïve 漢字", "a\x1b[2J": `a\x1b[2J`, "\r\n\t": `\r\n\t`, "\x9b": `\x9b`, "\u009b": `\u009b`,
		"\u202eexe": `\u202eexe`, "\u200b": `\u200b`, "\xff\xfe": `\xff\xfe`, "\ufffd": "\ufffd", "\x7f": `\x7f`, "\x05": `\x05`,
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := diagnostic("two\nlines\tand \x1b[31mred"); got != "two\nlines    and \\x1b[31mred" {
		t.Errorf("%q", got)
	}
	if got := commandLine([]string{"sh", "-c", "a b", "", `"`}); got != `sh -c "a b" "" "\""` {
		t.Errorf("%q", got)
	}
}

// TestTableFits tells that no line is longer than the terminal, and that colours
// take no room.
func TestTableFits(t *testing.T) {
	all := []api.Summary{
		{ID: idA, Status: "running", Command: []string{strings.Repeat("long ", 50)}, Labels: map[string]string{"a": "b"}},
		{ID: idB, Status: "queued", Command: []string{"ls"}, Owner: 1000},
	}
	for _, columns := range []int{1, 5, 20, 40, 80, 200} {
		table := psTable(all, time.Now(), 0, true)
		plain := table.lines(columns, false)
		for _, line := range plain {
			if n := utf8.RuneCountInString(line); n > columns {
				t.Errorf("%d columns: %d in %q", columns, n, line)
			}
		}
		colored := strings.Join(table.lines(columns, true), "\n")
		for _, code := range []string{"36", "0"} {
			colored = strings.ReplaceAll(colored, "\x1b["+code+"m", "")
		}
		if !slices.Equal(plain, strings.Split(colored, "\n")) {
			t.Errorf("%d columns: colours change the text: %q", columns, colored)
		}
	}
	if line := psTable(all, time.Now(), 0, true).lines(0, false)[2]; !strings.Contains(line, "1000") {
		t.Errorf("the owner is missing: %q", line)
	}
}

// TestColours tells who gets them.
func TestColours(t *testing.T) {
	for _, c := range []struct {
		columns int
		env     map[string]string
		colours bool
	}{{80, nil, true}, {0, nil, false}, {80, map[string]string{"NO_COLOR": "1"}, false}, {80, map[string]string{"TERM": "dumb"}, false}, {80, map[string]string{"NO_COLOR": ""}, true}} {
		b := newBench("")
		b.columns = c.columns
		b.lookupEnv = func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
		populated(b)
		b.main([]string{"ps", "--address=/there"})
		if strings.Contains(b.out.String(), "\x1b[36m") != c.colours {
			t.Errorf("%+v: %q", c, b.out.String())
		}
	}
}

func TestTail(t *testing.T) {
	for _, c := range []struct {
		lines int
		text  string
		want  string
	}{
		{-1, "a\nb\n", "a\nb\n"}, {0, "a\nb\n", ""}, {1, "a\nb\n", "b\n"}, {1, "a\nb", "b"}, {2, "a\nb\nc\n", "b\nc\n"}, {3, "a\nb\n", "a\nb\n"}, {2, "\n\n\n", "\n\n"}, {1, "", ""},
	} {
		for size := 1; size < 4; size++ {
			k := &tail{lines: c.lines}
			for piece := range slices.Chunk([]byte(c.text), size) {
				_, _ = k.Write(piece)
			}
			if string(k.data) != c.want {
				t.Errorf("%d of %q in pieces of %d: %q", c.lines, c.text, size, k.data)
			}
		}
	}
}

// TestPump tells that what one source did not take goes to the next.
func TestPump(t *testing.T) {
	in, to := io.Pipe()
	p := newPump(in)
	first := p.source()
	go to.Write([]byte("abcdef"))
	buf := make([]byte, 2)
	if _, err := io.ReadFull(first, buf); err != nil || string(buf) != "ab" || !p.inFlight() || p.inFlight() {
		t.Errorf("%q, %v", buf, err)
	}
	blocked := make(chan error)
	go func() {
		_, err := io.ReadFull(first, make([]byte, 4)) // "cdef" is there
		if err == nil {
			_, err = first.Read(buf)
		}
		blocked <- err
	}()
	// The reader above takes the rest and blocks, or is stopped before that.
	first.stop()
	err := <-blocked
	second := p.source()
	go func() {
		to.Write([]byte("gh"))
		to.Close()
	}()
	rest, end := io.ReadAll(second)
	if err != io.ErrClosedPipe && err != io.ErrUnexpectedEOF || end != nil || !strings.HasSuffix("cdefgh", string(rest)) || !strings.HasSuffix(string(rest), "gh") {
		t.Errorf("%v; %q, %v", err, rest, end)
	}
}
