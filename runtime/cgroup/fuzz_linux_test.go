package cgroup

import (
	"strings"
	"testing"
)

// FuzzFiles gives any content to the parsers of control group files: no panic,
// and no number that the kernel cannot have meant.
func FuzzFiles(f *testing.F) {
	for _, text := range []string{"", "12\n", "max\n", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n", "usage_usec 1500\nuser_usec 1000\nsystem_usec 499\n",
		"8:0 rbytes=1 wbytes=2 rios=3 wios=4\n", "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
		"oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "9223372036854775807\n", "usage_usec -1\n", "oom_kill 99999999999999999999\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, content string) {
		if n := number(content); n != nil && *n < 0 {
			t.Errorf("number(%q) is %d", content, *n)
		}
		var s Stats
		s.cpuStat(content)
		s.oomKills(content)
		s.ioStat(content)
		for _, key := range []string{"oom_kill", "max", "usage_usec"} {
			if n := keyed(content, key); n != nil && *n < 0 {
				t.Errorf("keyed(%q, %s) is %d", content, key, *n)
			}
		}
		if s.OOMKills != nil && *s.OOMKills < 0 {
			t.Errorf("%q: %d kills", content, *s.OOMKills)
		}
		if s.Kernel != nil && *s.Kernel < 0 {
			t.Errorf("%q: %v in the kernel", content, *s.Kernel)
		}
	})
}

// FuzzOwnGroup gives any content of /proc/self/cgroup to the detection: what it
// finds lies below the mount point.
func FuzzOwnGroup(f *testing.F) {
	for _, text := range []string{"0::/\n", "0::/../x\n", "4:memory:/a/b\n1:name=systemd:/\n0::/a\n", "x", ":::\n", "0::" + strings.Repeat("/..", 20) + "\n",
		"0::/a/../../../x\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, content string) {
		mount := t.TempDir()
		for _, mode := range []Mode{ModeV1, ModeV2, ModeHybrid} {
			h, err := detect(mount, mode, strings.NewReader(content))
			if err != nil {
				continue
			}
			for _, tree := range h.trees {
				if tree.parent != mount && !strings.HasPrefix(tree.parent, mount+"/") {
					t.Errorf("%q: %s lies outside", content, tree.parent)
				}
			}
		}
	})
}
