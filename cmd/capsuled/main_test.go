package main

import (
	"bytes"
	"log/slog"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	o, err := parse([]string{"-state", "/x", "-log-format", "json", "-log-level", "debug", "-sweep-interval", "1s"}, &bytes.Buffer{})
	want := options{state: "/x", format: "json", level: slog.LevelDebug, interval: time.Second}
	if err != nil || o != want {
		t.Errorf("parse: %+v, %v, want %+v", o, err, want)
	}
	for _, args := range [][]string{{"x"}, {"-log-format", "xml"}, {"-log-level", "loud"}, {"-sweep-interval", "1ms"}, {"-nope"}} {
		var said bytes.Buffer
		if _, err := parse(args, &said); err == nil || said.Len() == 0 {
			t.Errorf("parse(%q): %v, said %q; want an error that is told", args, err, said.String())
		}
	}
}
