package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMain plays a role when the harness has started this program again.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	flag.Parse()
	os.Exit(m.Run())
}

// TestChaos is a short run of all phases.
func TestChaos(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cgroups and a mount namespace need root")
	}
	if testing.Short() {
		t.Skip("it takes most of a minute")
	}
	bin := os.Getenv("CAPSULE_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	if _, err := os.Stat(filepath.Join(bin, "capsuled")); err != nil {
		t.Fatalf("run make build, or set CAPSULE_BIN: %v", err)
	}
	c := config{supervisors: 6, shims: 8, clients: 6, both: 6, load: 8, seed: uint64(time.Now().UnixNano()), bin: bin,
		deadline: 4 * time.Minute, records: true, space: true, quick: true}
	var out bytes.Buffer
	err := chaos(t.Context(), c, &out)
	if err != nil {
		t.Errorf("%s%v", out.String(), err)
		return
	}
	t.Logf("%s", out.String())
}

// TestFewExecutions refuses what would not be a load, or too much of one.
func TestFewExecutions(t *testing.T) {
	for _, n := range []int{0, 1, 33} {
		if err := chaos(context.Background(), config{load: n}, &bytes.Buffer{}); err == nil {
			t.Errorf("a load of %d was accepted", n)
		}
	}
}
