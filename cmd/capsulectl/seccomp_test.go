package main

import (
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

func TestSeccompVerb(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"seccomp list", 0, []string{"default ", "strict ", "network "}},
		{"seccomp list -o json", 0, []string{`"name": "strict"`}},
		{"seccomp show strict", 0, []string{`"defaultAction": "SCMP_ACT_ERRNO"`}},
		{"seccomp explain default mount clone3", 0, []string{"mount\n  EPERM\n      Mounts and roots.", "clone3\n  ENOSYS (not among the denials)\n"}},
		{"seccomp explain strict socket", 0, []string{"socket\n  EPERM\n      No rule of strict names it.\n"}},
		{"seccomp explain strict", 0, []string{"every other call\n  EPERM\n"}},
		{"seccomp explain -o json default chmod", 0, []string{`"argument 1 & 0xc00 is 0x0"`}},
		{"seccomp diff default network", 0, []string{"socket\n  + allow when argument 0 is 0x10 and argument 2 is 0x0\n"}},
		{"seccomp diff default strict", 0, []string{"fork\n  - allow\n  + EPERM\n", "every other call\n  - ENOSYS\n  + EPERM\n"}},
		{"seccomp diff -o json strict strict", 0, []string{"[]\n"}},
		{"seccomp explain default mountt", spec.ExitRefused, []string{"E1001", "mountt"}},
		{"seccomp explain defualt", spec.ExitRefused, []string{"E1001", "defualt"}},
		{"seccomp show", spec.ExitRefused, []string{"E1001", "seccomp list"}},
		{"seccomp diff default", spec.ExitRefused, []string{"E1001"}},
		{"seccomp generate testdata/audit.json", 0, []string{`"defaultAction": "SCMP_ACT_ERRNO"`, `"op": "SCMP_CMP_MASKED_EQ"`, "openat 2&0x400040=0x0: seen 33 times by sort in 748533f8", "warning: ioctl had more"}},
		{"seccomp generate -o json testdata/audit.json testdata/audit.json", 0, []string{`"reason": "seen 66 times by sort in 748533f8`}},
		{"seccomp generate", spec.ExitRefused, []string{"E1001", "files, - or ids"}},
		{"seccomp generate testdata/none.json", spec.ExitRefused, []string{"E1006", "none.json"}},
		{"seccomp generate testdata/run.txt/", spec.ExitRefused, []string{"E1006"}},
		{"seccomp test", spec.ExitRefused, []string{"E1001", "behind --"}},
		{"seccomp test nope -- true", spec.ExitRefused, []string{"E1001", "nope"}},
		{"seccomp test strict", spec.ExitRefused, []string{"E1002"}},
		{"seccomp test --help", 0, []string{"generate RECORD..."}},
		{"seccomp shw", spec.ExitRefused, []string{"show"}},
	} {
		b := newBench("")
		if code := b.main(strings.Fields(c.args)); code != c.code {
			t.Errorf("%s: exit %d, want %d: %s", c.args, code, c.code, b.errOut.String())
		}
		for _, want := range c.says {
			if text := b.out.String() + b.errOut.String(); !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %s", c.args, want, text)
			}
		}
	}
}
