package main

import (
	"os"
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

// TestStartContainerHookSeesACopy: an interpreter line makes the launcher's own program
// the hook's, which is the copy in memory (CVE-2019-5736).
func TestStartContainerHookSeesACopy(t *testing.T) {
	b := newBox(t, "true")
	script := "#!/proc/self/exe\n"
	if err := os.WriteFile(b.path("rootfs/hook"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	// The program, executed as the hook, is the program of tests that is asked for the
	// names of the files that it runs from.
	b.config.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/hook", Env: []string{showProgram + "=/out/program"}}}}
	b.must("create", "hooked")
	_, _, _ = b.call("start", "hooked") // the hook's status is not what this is about
	if name := b.out("program"); !strings.HasPrefix(name, "/memfd:"+memoryName) {
		t.Errorf("the hook ran %q", name)
	}
}

// TestPausedBeforeStart: a created container that is paused says so, and goes on.
func TestPausedBeforeStart(t *testing.T) {
	b := newBox(t, "true")
	b.must("create", "cold")
	b.must("pause", "cold")
	if st := b.state("cold").Status; st != "paused" {
		t.Errorf("after pause: %s", st)
	}
	b.refused([]string{"E1001", "paused"}, "start", "cold")
	b.must("resume", "cold")
	if st := b.state("cold").Status; st != specs.StateCreated {
		t.Errorf("after resume: %s", st)
	}
	b.must("start", "cold")
	b.until("cold", specs.StateStopped)
}
