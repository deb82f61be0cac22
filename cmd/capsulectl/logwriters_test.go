package main

import (
	"strings"
	"testing"
	"time"
)

func TestSince(t *testing.T) {
	for v, want := range map[string]time.Time{
		"2026-01-31T14:00:00Z":      time.Date(2026, 1, 31, 14, 0, 0, 0, time.UTC),
		"2026-01-31T14:00:00+02:00": time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		"2026-01-31 14:00":          time.Date(2026, 1, 31, 14, 0, 0, 0, time.Local),
		"2026-01-31":                time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
	} {
		k := &call{}
		if err := takeSince(k, v); err != nil || !k.sinceTime.Equal(want) {
			t.Errorf("%s: %v, %v", v, k.sinceTime, err)
		}
	}
	before := time.Now()
	k := &call{}
	if err := takeSince(k, "10m"); err != nil || k.sinceTime.Before(before.Add(-10*time.Minute)) || k.sinceTime.After(time.Now().Add(-10*time.Minute)) {
		t.Errorf("10m: %v, %v", k.sinceTime, err)
	}
	for _, v := range []string{"", "10", "yesterday", "-5m", "2026-13-01"} {
		if err := takeSince(&call{}, v); err == nil {
			t.Errorf("%q is taken", v)
		}
	}
}

func TestLinesAreStamped(t *testing.T) {
	var b strings.Builder
	s := &stamper{w: &b, lines: true}
	write := func(text string) {
		if n, err := s.Write([]byte(text)); err != nil || n != len(text) {
			t.Fatal(n, err)
		}
	}
	write("not known\n")
	s.came = time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	write("one\ntw")
	s.came = s.came.Add(time.Second)
	write("o\n\nthree")
	const want = unknownStamp + " not known\n2026-01-02T03:04:05.006Z one\n2026-01-02T03:04:05.006Z two\n2026-01-02T03:04:06.006Z \n2026-01-02T03:04:06.006Z three"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
