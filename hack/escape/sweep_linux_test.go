package escape

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// sweepTime is how long each profile is swept: CAPSULE_ESCAPE_SWEEP seconds,
// or a moment.
func sweepTime() time.Duration {
	if n, err := strconv.Atoi(os.Getenv("CAPSULE_ESCAPE_SWEEP")); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	return time.Second
}

// TestSystemCallSweep tries every number with hostile arguments under each
// profile, and without any. The payload may die of it; the shim, the host and
// what is outside may not.
func TestSystemCallSweep(t *testing.T) {
	if os.Getenv("CAPSULE_ESCAPE_BREACH") != "" {
		t.Skip("with a wall missing, random calls would reach the host")
	}
	begin(t)
	reasons := map[spec.Reason]int{}
	for _, profile := range []string{"default", "network", "strict", "unconfined"} {
		seed := uint64(time.Now().UnixNano())
		for end := time.Now().Add(sweepTime()); time.Now().Before(end); seed++ {
			r := request([]string{fmt.Sprint("sweep:1000,", seed)}, isolation("seccomp", profile), field("timeout_ms", 8000), field("grace_ms", 100))
			a := run(t, r)
			reasons[a.Termination.Reason]++
			if a.Status == spec.StatusError || a.Termination.Reason == spec.ReasonShimLost || a.Timestamps.Completed == nil {
				t.Errorf("profile %s, seed %d: %s, %s, %+v", profile, seed, a.Status, a.Termination.Reason, a.Error)
			}
		}
	}
	t.Logf("%v", reasons)
	if reasons[spec.ReasonExited] == 0 {
		t.Errorf("no sweep came to its end: %v", reasons)
	}
}

// TestOtherCallTables: the filter is for one table of numbers; the others are
// refused whatever the number.
func TestOtherCallTables(t *testing.T) {
	begin(t)
	got := run(t, request([]string{"compatible"})).results()["compatible"]
	for _, said := range strings.Fields(got) {
		if !slices.Contains([]string{"SIGSYS", "SIGKILL", "EPERM", "ENOSYS"}, said) {
			t.Errorf("%s", got)
		}
	}
	if strings.Count(got, " ") < 1 {
		t.Errorf("%q", got)
	}
}
