package main

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestDeviceRuleOfBothKinds: a rule without a type is about two kinds of devices of its
// number, and one of a single use about that use.
func TestDeviceRuleOfBothKinds(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	mknod := []string{"CAP_MKNOD"}
	for name, rule := range map[string]specs.LinuxDeviceCgroup{
		"number": {Allow: true, Major: number(1), Minor: number(5), Access: "rwm"},
		"use":    {Allow: true, Access: "m"},
	} {
		b := newBox(t, "sh", "-c", "mknod /out/fuse c 10 229; (exec 3</out/fuse) 2>&1")
		b.config.Process.Capabilities = &specs.LinuxCapabilities{Bounding: mknod, Effective: mknod, Permitted: mknod}
		b.config.Linux.Resources.Devices = append(b.config.Linux.Resources.Devices, rule)
		if out, _, _ := b.call("run", name); !strings.Contains(out, "Operation not permitted") {
			t.Errorf("%s: %q", name, out)
		}
	}
}
