package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	cases := []struct {
		name, in string
		ok       bool
		want     []string
		not      []string
	}{
		{
			name: "passes and a skip",
			in: `{"Action":"output","Package":"p","Test":"A","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:3: needs cgroup v2\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`,
			ok:   true,
			want: []string{"ok  \tp\t0.1s\n", "skipped 1: needs cgroup v2\n", "1 passed, 0 failed, 1 skipped\n"},
			not:  []string{"noise"},
		},
		{
			name: "a failure shows its output",
			in: `{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:9: broken\n"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`,
			want: []string{"a_test.go:9: broken", "FAIL\tp\t0.1s\n", "0 passed, 1 failed, 0 skipped\n"},
		},
		{
			name: "a crash has no failed test",
			in: `{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Output":"panic: at the disco\n"}
{"Action":"fail","Package":"p"}
`,
			want: []string{"panic: at the disco", "1 passed, 0 failed, 0 skipped, 1 packages broken\n"},
		},
		{
			name: "a build error",
			in: `{"Action":"build-output","ImportPath":"p","Output":"x.go:1: undefined: y\n"}
{"Action":"build-fail","ImportPath":"p"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
`,
			want: []string{"x.go:1: undefined: y", "1 packages broken"},
		},
		{name: "nothing ran", in: "", want: []string{"0 passed"}},
		{name: "plain text passes through", in: "go: no such tool\n", want: []string{"go: no such tool\n"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out, "")
			if err := r.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if ok := r.close(false); ok != c.ok {
				t.Errorf("ok = %v, want %v", ok, c.ok)
			}
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("output lacks %q:\n%s", w, out.String())
				}
			}
			for _, w := range c.not {
				if strings.Contains(out.String(), w) {
					t.Errorf("output has %q:\n%s", w, out.String())
				}
			}
		})
	}
}
