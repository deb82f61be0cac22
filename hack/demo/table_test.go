package main

import (
	"strings"
	"testing"
)

func TestFoldKeepsTheDocument(t *testing.T) {
	documents := []string{
		`{}`,
		`{"a":1,"b":"x, y, z","c":[1,2,3]}`,
		`{"text":"a \\" quote, and a comma","n":null}`,
		`{"long":"` + strings.Repeat("x,", 100) + `","n":1}`,
	}
	for _, d := range documents {
		for _, width := range []int{1, 10, 40, 1000} {
			lines := fold(d, width)
			if got := strings.Join(lines, ""); got != d {
				t.Errorf("fold(%q, %d) joins to %q", d, width, got)
			}
		}
	}
	if got := fold(`{"a":1,"b":2,"c":3}`, 14); len(got) != 2 || got[0] != `{"a":1,"b":2,` {
		t.Errorf("fold = %q", got)
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{"short": "short", "a\x1b[31mb": "a[31mb", "0123456789": "0123456…"} {
		if got := clip(in, 8); got != want {
			t.Errorf("clip(%q) = %q, want %q", in, got, want)
		}
	}
}
