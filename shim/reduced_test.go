//go:build linux || darwin

package shim

import (
	"bytes"
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// launcherVariable makes a copy of this test program a launcher.
const launcherVariable = "CAPSULE_TEST_LAUNCHER"

// TestReducedLauncher is no test but the launcher of the others.
func TestReducedLauncher(t *testing.T) {
	if len(os.Args) < 2 || os.Args[len(os.Args)-1] != launcherVariable {
		return
	}
	EnterReduced()
	os.Exit(99)
}

func reduced(t *testing.T, ctx context.Context, change func(*spec.Request), o ReducedOptions) *spec.Response {
	t.Helper()
	r := spec.Default()
	r.Isolation.Backend = spec.BackendProcess
	r.Command = []string{"true"}
	change(r)
	r.Complete()
	o.ID, o.Launcher = "id", []string{os.Args[0], "-test.run=^TestReducedLauncher$", launcherVariable}
	x, err := StartReduced(ctx, r, o)
	if err != nil {
		t.Fatal(err)
	}
	return x.Wait()
}

func runs(args ...string) func(*spec.Request) {
	return func(r *spec.Request) { r.Command = args }
}

// TestReduced: limits, output, environment and verdict without a shim process.
func TestReduced(t *testing.T) {
	var live bytes.Buffer
	a := reduced(t, context.Background(), func(r *spec.Request) {
		r.Command = []string{"sh", "-c", `ulimit -n; cat; [ "$PWD" = "$HOME" ] && echo home; env | sed 's/=.*//' | sort | tr '\n' ' '; echo err >&2; exit 3`}
		r.Environment = map[string]string{"A": "b"}
		r.Stdin = ptr(spec.Bytes("fed\n"))
		r.Resources.Rlimits = map[string]spec.Rlimit{"nofile": {Soft: 44, Hard: 44}}
	}, ReducedOptions{Stdout: &live})
	if a.ExitCode == nil || *a.ExitCode != 3 || a.Status != spec.StatusSuccess || a.Stdout == nil || *a.Stderr != "err\n" {
		t.Fatalf("%s", a.Encode(true))
	}
	if want := "44\nfed\nhome\nA HOME LANG PATH PWD "; *a.Stdout != want || live.String() != want {
		t.Errorf("stdout %q, live %q", *a.Stdout, live.String())
	}
	for name, state := range a.Enforcement.Walls {
		if (state == spec.Enforced) != (name == spec.WallRlimits) {
			t.Errorf("wall %s is %s", name, state)
		}
	}
	if m := a.Metrics; m.CPUTimeMS == nil || m.MaxMemoryBytes == nil || *m.MaxMemoryBytes < 100<<10 || m.OOMKills != nil || a.Timestamps.Started == nil {
		t.Errorf("%+v", a.Metrics)
	}
	if _, err := spec.DecodeResponse(a.Encode(false)); err != nil {
		t.Error(err)
	}
}

func TestReducedVerdicts(t *testing.T) {
	ctx := context.Background()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		change func(*spec.Request)
		status spec.Status
		reason spec.Reason
		code   fault.Code
		signal int
	}{
		"signal":       {ctx, runs("sh", "-c", "kill -SEGV $$"), spec.StatusKilled, spec.ReasonSignaled, fault.KilledBySignal, 11},
		"not found":    {ctx, runs("no-such-program"), spec.StatusError, spec.ReasonSetupFailed, fault.CommandNotFound, 0},
		"no directory": {ctx, func(r *spec.Request) { r.Isolation.WorkingDirectory = "/no/where" }, spec.StatusError, spec.ReasonRefused, fault.InvalidPath, 0},
		"timeout":      {ctx, func(r *spec.Request) { r.Command, r.TimeoutMS = []string{"sleep", "600"}, 50 }, spec.StatusTimeout, spec.ReasonTimeoutWall, fault.Timeout, 15},
		"stubborn": {ctx, func(r *spec.Request) {
			r.Command, r.TimeoutMS, r.GraceMS = []string{"sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"}, 300, 10
		}, spec.StatusTimeout, spec.ReasonTimeoutWall, fault.Timeout, 9},
		"output": {ctx, func(r *spec.Request) {
			r.Command = []string{"sh", "-c", "while :; do echo 123; done"}
			r.Resources.MaxOutputBytes, r.Resources.OutputPolicy = 100, spec.OutputKill
		}, spec.StatusKilled, spec.ReasonOutputLimit, fault.OutputLimit, 9},
		"cancelled":     {cancelled, runs("sleep", "600"), spec.StatusKilled, spec.ReasonKilledByCaller, fault.Cancelled, int(syscall.SIGKILL)},
		"child in tow":  {ctx, runs("sh", "-c", "sleep 600 & exit 0"), spec.StatusSuccess, spec.ReasonExited, "", 0},
		"not a program": {ctx, runs("/etc/passwd"), spec.StatusError, spec.ReasonSetupFailed, fault.CommandNotFound, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := reduced(t, c.ctx, c.change, ReducedOptions{})
			for more := int64(600); name == "stubborn" && *a.Stdout == "" && more < 10_000; more *= 2 { // the time-out came before its first word
				a = reduced(t, c.ctx, func(r *spec.Request) { c.change(r); r.TimeoutMS = more }, ReducedOptions{})
			}
			code, signal := "", 0
			if a.Error != nil {
				code = a.Error.Code
			}
			if a.Signal != nil {
				signal = *a.Signal
			}
			if a.Status != c.status || a.Termination.Reason != c.reason || code != string(c.code) || signal != c.signal {
				t.Errorf("%s", a.Encode(true))
			}
		})
	}
}

func TestReducedRefusals(t *testing.T) {
	r := spec.Default()
	r.Isolation.Backend, r.Command = spec.BackendProcess, []string{"true"}
	r.Isolation.ReadonlyPaths, r.Resources.MemoryBytes = []string{"/usr"}, 1<<30
	_, err := StartReduced(context.Background(), r, ReducedOptions{})
	if err == nil || !strings.Contains(err.Error(), "E2008") || !strings.Contains(err.Error(), "E4001") {
		t.Errorf("%v", err)
	}
}
