package main

import (
	"fmt"
	"io"
	"time"
)

// progressInterval is after how long something is said to go on, and how often.
const progressInterval = time.Second

// progress tells a person on the terminal behind stderr that something goes on,
// once it takes longer than a second: what, and for how long already. done ends it
// and takes the line away; it must be called, and before anything else is printed.
// Where stderr is no terminal nothing is ever said.
func (c *console) progress(what string) (done func()) {
	if _, _, terminal := c.size(c.stderr); !terminal {
		return func() {}
	}
	ticker := time.NewTicker(progressInterval)
	end := tell(c.stderr, what, ticker.C)
	return func() {
		ticker.Stop()
		end()
	}
}

// tell writes a line for each tick over the one before.
func tell(w io.Writer, what string, ticks <-chan time.Time) (end func()) {
	start := time.Now()
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		said := false
		for {
			select {
			case now := <-ticks:
				// Whether a person sees it changes nothing.
				_, _ = fmt.Fprintf(w, "\r\x1b[K%s ... %d s", what, int(now.Sub(start).Round(time.Second).Seconds()))
				said = true
			case <-over:
				if said {
					_, _ = io.WriteString(w, "\r\x1b[K") // as above
				}
				return
			}
		}
	}()
	return func() {
		close(over)
		<-ended
	}
}
