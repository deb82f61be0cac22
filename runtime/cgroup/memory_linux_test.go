package cgroup

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestSmallestMemory looks for the smallest limit at which programs can start
// in the group, because the kernel charges set-up (stacks, page tables,
// descriptors) to it. The contract accepts limits from 1 MiB.
func TestSmallestMemory(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		programs := map[string][]string{"dynamic": {"/bin/true"}}
		if path, ok := minimalProgram(t); ok {
			programs["static"] = []string{path}
		}
		if _, err := os.Stat("/bin/busybox"); err == nil {
			programs["busybox"] = []string{"/bin/busybox", "true"}
		}
		for kind, argv := range programs {
			smallest := 0
			for _, kib := range []int{2048, 1536, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 64} {
				g := newGroup(t, h, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(kib) << 10)}})
				err := start(t, g, "", argv...).Run()
				if removeErr := g.Remove(soon(t)); removeErr != nil {
					t.Fatal(removeErr)
				}
				if err != nil {
					t.Logf("%s: %d KiB: %v", kind, kib, err)
					break
				}
				smallest = kib
			}
			t.Logf("%s: smallest limit %d KiB", kind, smallest)
			if smallest == 0 || smallest > 1024 {
				t.Errorf("%s: does not start at 1 MiB", kind)
			}
		}
	}, Memory)
}

// minimalProgram is an ELF file of one page that calls exit(0).
func minimalProgram(t *testing.T) (string, bool) {
	if runtime.GOARCH != "amd64" {
		return "", false
	}
	header := []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x02\x00\x3e\x00\x01\x00\x00\x00\x78\x00\x40\x00\x00\x00\x00\x00" +
		"\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00" +
		"\x84\x00\x00\x00\x00\x00\x00\x00\x84\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x10\x00\x00\x00\x00\x00\x00")
	code := []byte("\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05\x90\x90\x90")
	path := filepath.Join(t.TempDir(), "exit0")
	if err := os.WriteFile(path, append(header, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, true
}
