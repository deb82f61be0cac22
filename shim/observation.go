//go:build unix

// Other systems have no signals to make a verdict of.

package shim

import (
	"syscall"
	"time"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// teardownTime bounds the wait for the end of killed processes.
const teardownTime = 10 * time.Second

// observation is all that a verdict is made from.
type observation struct {
	failure      error // creation or set-up failed
	exited       bool
	status       syscall.WaitStatus
	wall         time.Duration
	timeout      bool // the wall clock struck
	cpuTime      bool // the CPU time limit struck
	outputLimit  bool
	cancelled    bool              // a caller ended everything, or was lost
	callerSignal syscall.Signal    // the last one a caller sent; 0: none
	full         []launch.FullDisk // when the payload ended
	pidsLimit    int64             // of the control group; 0: not enforced
	initCounts   bool              // process 1 is ours and counts in the group
	states       map[string]int    // of the processes when the time was over
	unkilled     string            // what SIGKILL did not end, for people
	stats        cgroup.Stats
	statsErr     error
	pressure     *spec.Pressure
	killedCall   string // the system call for which the filter killed; empty: none is known
	killedHard   bool   // by SIGKILL
}

func cancelledEarly() error {
	return fault.New(fault.Cancelled, "", "ended by the caller before the command ran")
}
