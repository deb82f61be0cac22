package main

import (
	"strings"
	"testing"
	"time"
)

func TestRows(t *testing.T) {
	peers := []*peer{
		{Name: "fork+exec", samples: []time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}},
		{Name: "bubblewrap", Absent: "not installed"},
		{Name: "capsule --json", samples: []time.Duration{6 * time.Millisecond}, phases: map[string][]int64{"clone": {30, 10, 20}}},
	}
	all := rows(peers)
	if got := *all[0].MedianUS; got != 2000 {
		t.Errorf("median = %d us, want 2000", got)
	}
	if got := *all[2].RatioToBare; got != 3 {
		t.Errorf("ratio = %v, want 3", got)
	}
	if all[1].MedianUS != nil || all[2].RatioToBwrap != nil {
		t.Error("a peer that was not measured has numbers")
	}
	var out strings.Builder
	writeTable(&out, 3, peers)
	for _, want := range []string{"fork+exec", "not installed", "clone 20"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, out.String())
		}
	}
}
