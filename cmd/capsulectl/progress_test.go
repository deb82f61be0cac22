package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

// TestProgress: a line for each tick, taken away at the end; nothing without a tick,
// and nothing where there is no terminal.
func TestProgress(t *testing.T) {
	r, w := io.Pipe()
	ticks := make(chan time.Time)
	all := make(chan string)
	go func() {
		text, _ := io.ReadAll(r) // what there is of it is compared
		all <- string(text)
	}()
	end := tell(w, "pruning", ticks)
	start := time.Now()
	ticks <- start.Add(1010 * time.Millisecond)
	ticks <- start.Add(1990 * time.Millisecond)
	end()
	w.Close()
	if got, want := <-all, "\r\x1b[Kpruning ... 1 s\r\x1b[Kpruning ... 2 s\r\x1b[K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var quick strings.Builder
	tell(&quick, "pruning", ticks)()
	if quick.Len() != 0 {
		t.Errorf("something quick says %q", quick.String())
	}
	b := newBench("") // which has no terminal
	b.progress("pruning")()
	if b.errOut.String() != "" {
		t.Errorf("without a terminal: %q", b.errOut.String())
	}
}
