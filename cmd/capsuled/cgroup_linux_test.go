package main

import "testing"

func TestUnifiedCgroup(t *testing.T) {
	for content, want := range map[string]string{
		"0::/system.slice/capsuled.service\n": "/system.slice/capsuled.service",
		"12:pids:/x\n0::/\n":                  "",
		"0::/a\n1:name=systemd:/a\n":          "",
		"":                                    "",
	} {
		own, ok := unified(content)
		if ok != (want != "") || ok && own != want {
			t.Errorf("%q: %q, %v", content, own, ok)
		}
	}
}
