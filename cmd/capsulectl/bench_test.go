package main

import (
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// TestBenchRefuses what cannot be measured, with a code and before anything runs.
func TestBenchRefuses(t *testing.T) {
	for args, code := range map[string]fault.Code{
		"bench -n 0":                         fault.OutOfRange,
		"bench -n 100001":                    fault.OutOfRange,
		"bench --seconds 0":                  fault.OutOfRange,
		"bench --seconds NaN":                fault.OutOfRange,
		"bench --clients 1,,2":               fault.InvalidValue,
		"bench --clients 2x":                 fault.InvalidValue,
		"bench --clients 0":                  fault.InvalidValue,
		"bench --embedded --address /run/x":  fault.InvalidValue,
		"bench -o yaml":                      fault.InvalidValue,
		"bench --rouns 3":                    fault.InvalidValue,
		"bench --embedded -- /nonexistent/x": fault.CommandNotFound,
	} {
		b, want := newBench(""), spec.ExitRefused
		if code == fault.CommandNotFound {
			want = spec.ExitNotFound
		}
		if exit := b.main(strings.Fields(args)); exit != want || !strings.Contains(b.errOut.String(), string(code)) || b.out.String() != "" {
			t.Errorf("%s: exit %d, %q, want %s", args, exit, b.errOut.String(), code)
		}
	}
}
