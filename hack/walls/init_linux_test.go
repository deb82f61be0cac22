package walls

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

func itoa(n int) string { return strconv.Itoa(n) }

// detail is one of the details of a fault, or "".
func detail(err error, key string) string {
	var f *fault.Fault
	if !errors.As(err, &f) {
		return ""
	}
	text, _ := f.Details[key].(string)
	return text
}

var (
	// sameIDs leaves process 1 with the ids of user 0; rootless it is so anyway.
	sameIDs = dropping(func(s *plan.Step) bool {
		return s.Path == "init" && (s.Op == plan.OpSetresuid || s.Op == plan.OpSetresgid)
	})
	// dumpable is what process 1 would be had it not begun with other ids.
	dumpable = func(p *plan.Plan) {
		for i := range p.Init {
			if isPrctl(&p.Init[i], prSetDumpable) {
				p.Init[i].Args = slices.Clone(p.Init[i].Args)
				p.Init[i].Args[1].N = 1
			}
		}
	}
)

// TestInitIsOutOfReach: the command can read and change nothing of process 1,
// which holds the status channel. As root its ids and its dumpable flag each
// forbid it; rootless the flag alone.
func TestInitIsOutOfReach(t *testing.T) {
	b := box{}.with(asUser("0"))
	nothing := map[string]string{"init-files": ""}
	box{}.expect(t, "behind all walls", nothing)
	b.expect(t, "behind all walls, as user 0", nothing)
	b.with(sameIDs).expect(t, "with the same ids", nothing)
	if !rootless() {
		b.with(dumpable).expect(t, "dumpable", nothing)
	}
	if got := b.with(sameIDs, dumpable).attack(t, "init-files")["init-files"]; got == "" {
		t.Error("with the same ids and dumpable nothing is reached: the attack does not work")
	} else {
		t.Logf("without the walls the command reaches %s of process 1", got)
	}
	traced := b.with(noFilter{}, sameIDs, dumpable)
	traced.expect(t, "without the walls", map[string]string{"ptrace-init": "ok", "pidfd-init": "ok or EBADF"})
	b.with(noFilter{}, sameIDs).expect(t, "without the filter", map[string]string{"ptrace-init": "EPERM", "pidfd-init": "EPERM"})
}

// TestInitIsNeverInReach stretches every moment in which process 1 becomes
// what it will be, while the command already runs.
func TestInitIsNeverInReach(t *testing.T) {
	if testing.Short() {
		t.Skip("half a million steps")
	}
	stretch := func(p *plan.Plan) {
		pause := plan.Step{Op: plan.OpUmask, Args: []plan.Arg{{Kind: plan.ArgImm}}}
		var slow []plan.Step
		for _, s := range p.Init {
			slow = append(slow, s)
			for range 60_000 {
				slow = append(slow, pause)
			}
		}
		p.Init = slow
	}
	attack := "init-race:" + patient(300*time.Millisecond).String()
	b := box{}.with(asUser("0"), sameIDs)
	b.with(stretch).expect(t, "with the same ids", map[string]string{attack: "never"})
	late := func(p *plan.Plan) {
		if !isPrctl(&p.Init[0], prSetDumpable) {
			t.Fatalf("the first step of init is %v", p.Init[0])
		}
		p.Init[0].Args = slices.Clone(p.Init[0].Args)
		p.Init[0].Args[1].N = 1
	}
	if got := b.with(late, stretch).attack(t, attack)[attack]; got == "never" {
		t.Error("undumpable only after the capabilities are gone, and yet never in reach: the attack does not work")
	}
}
