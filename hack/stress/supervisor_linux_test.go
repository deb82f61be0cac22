package stress

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
)

// A supervisor that lives long keeps neither descriptors nor goroutines of the
// executions that it has seen, whatever became of them.
func TestSupervisorKeepsNothing(t *testing.T) {
	s, err := supervisor.New(supervisor.Options{StateDir: state(), ShimPath: binaries(t) + "/capsule-shim"})
	if err != nil {
		t.Fatal(err)
	}
	one := func(i int) {
		req := spec.Default()
		req.Command = [][]string{{"echo", "x"}, {"sleep", "1000"}, {"/does/not/exist"}, {"cat"}}[i%4]
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var stdout, stderr bytes.Buffer
		x, err := s.Start(ctx, req, newID(), supervisor.Streams{Stdin: strings.NewReader("x\n"), Stdout: &stdout, Stderr: &stderr})
		if err != nil {
			t.Error(err)
			return
		}
		if i%4 == 1 {
			cancel()
		}
		want := []spec.Reason{spec.ReasonExited, spec.ReasonKilledByCaller, spec.ReasonSetupFailed, spec.ReasonExited}[i%4]
		r := x.Wait()
		if r.Termination.Reason != want || want == spec.ReasonExited && stdout.String() != "x\n" {
			t.Errorf("%v: %s, want %s; output %q, error %v", req.Command, r.Termination.Reason, want, stdout.String(), r.Error)
		}
	}
	one(0) // what is opened once stays open
	eventually(t, processes)
	before := descriptors(t)
	together(scaled(60), 8, one)
	nothingLeft(t)
	eventually(t, func() []string {
		if buf := make([]byte, 1<<20); strings.Contains(string(buf[:runtime.Stack(buf, true)]), "capsule/supervisor.") {
			return []string{"goroutines of the supervisor:\n" + string(buf)}
		}
		return nil
	})
	eventually(t, func() []string {
		if after := descriptors(t); after > before {
			return []string{fmt.Sprintf("%d descriptors, %d before", after, before)}
		}
		return nil
	})
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
