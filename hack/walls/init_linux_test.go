package walls

import (
	"bufio"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/hack/walls/attack"
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

// shown lets /proc show processes that may not be traced.
func shown(s *specs.Spec) {
	m := mountAt(s, "/proc")
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "hidepid=") })
}

// TestInitIsOutOfReach: the command can read and change nothing of process 1,
// which holds the status channel. As root its ids and its dumpable flag each
// forbid it; rootless the flag alone. Landlock, where there is one, does too, and
// /proc does not show process 1 at all.
func TestInitIsOutOfReach(t *testing.T) {
	box{}.expect(t, "hidden", map[string]string{"exists:/proc/1": "ENOENT", "init-files": ""})
	b := box{}.with(asUser("0"), shown)
	nothing := map[string]string{"init-files": ""}
	box{}.with(shown).expect(t, "behind the other walls", map[string]string{"exists:/proc/1": "ok", "init-files": ""})
	b.expect(t, "as user 0", nothing)
	b.with(sameIDs).expect(t, "with the same ids", nothing)
	if !rootless() {
		b.with(dumpable).expect(t, "dumpable", nothing)
	}
	if got := b.with(sameIDs, dumpable, withoutLandlock).attack(t, "init-files")["init-files"]; got == "" {
		t.Error("with the same ids, dumpable and no Landlock nothing is reached: the attack does not work")
	} else {
		t.Logf("without the walls the command reaches %s of process 1", got)
	}
	traced := b.with(noFilter{}, sameIDs, dumpable, withoutLandlock)
	traced.expect(t, "without the walls", map[string]string{"ptrace-init": "ok", "pidfd-init": "ok or EBADF"})
	b.with(noFilter{}, sameIDs, withoutLandlock).expect(t, "without the filter", map[string]string{"ptrace-init": "EPERM", "pidfd-init": "EPERM"})
}

// TestInitIsNeverInReach holds process 1 after each step in which it becomes
// what it will be, while the command already runs and reaches for it.
func TestInitIsNeverInReach(t *testing.T) {
	b := box{}.with(asUser("0"), sameIDs, shown, withoutLandlock)
	if got := reachForInit(t, b); got != "" {
		t.Errorf("with the same ids: %s", got)
	}
	late := func(p *plan.Plan) {
		if !isPrctl(&p.Init[0], prSetDumpable) {
			t.Fatalf("the first step of init is %v", p.Init[0])
		}
		p.Init[0].Args = slices.Clone(p.Init[0].Args)
		p.Init[0].Args[1].N = 1
	}
	if got := reachForInit(t, b.with(late)); got == "" {
		t.Error("undumpable only after the capabilities are gone, and yet never in reach: the attack does not work")
	}
}

// reachForInit gives what the attacker says when it gets hold of process 1, or
// "". Process 1 reads a byte from the command's stdin after each step; it gets
// one when ten attempts were made since the last.
func reachForInit(t *testing.T, b box) string {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	b.stdin = r
	bytes := 0
	p := b.with(func(p *plan.Plan) {
		pause := plan.Step{Op: plan.OpRead, Expect: 1, Args: []plan.Arg{{Kind: plan.ArgImm, N: 0},
			{Kind: plan.ArgBytes, S: "\x00"}, {Kind: plan.ArgImm, N: 1}}}
		var held []plan.Step
		for _, s := range p.Init {
			held = append(held, s, pause)
			bytes++
		}
		p.Init = held
	}).compile(t, "init-race")
	run, err := b.launch(t, p)
	must(t, err)
	got, attempts, since := "", 0, attack.Monotonic()
	lines := bufio.NewScanner(run.out)
	for bytes > 0 && lines.Scan() {
		at, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			got = lines.Text()
			break
		}
		if at > since {
			attempts++
		}
		if attempts == 10 {
			_, err := w.Write([]byte{0})
			must(t, err)
			attempts, since = 0, attack.Monotonic()
			bytes--
		}
	}
	_, err = w.Write(make([]byte, bytes))
	must(t, err)
	must(t, run.started())
	must(t, w.Close()) // ends the attacker
	run.finish(t)
	return got
}
