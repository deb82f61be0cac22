package budget

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write what is measured into budget.json; where a row has more, more stays with -merge")
var merge = flag.Bool("merge", false, "with -update: keep the larger number, for a second kernel of the same kind of host")

const file = "budget.json"

// row is what one kind of process may do in one execution.
type row struct {
	Scenario string `json:"scenario"`
	Host     string `json:"host"`
	Process  string `json:"process"`
	// Calls are the system calls that are the program's own; for the init and the
	// payload, which have no scheduler, all.
	Calls   int   `json:"calls"`
	Faults  int64 `json:"faults"`
	Threads int   `json:"threads"`
	Starts  int   `json:"starts"`
	Execs   int   `json:"execs"`
	// Names are the calls by name, to tell what has grown. They bind nobody.
	Names map[string]int `json:"names"`
}

// key tells rows apart.
func (r *row) key() string { return r.Scenario + " | " + r.Host + " | " + r.Process }

// Room above what was measured. Starts and execs have none: they are decisions
// of the code alone. Neither has the scheduler's share any in the init and the
// payload; there it is what two kernels do differently.
const (
	moreCallsPercent = 5 // reads that find a pipe empty, connections read in two pieces
	moreCalls        = 8
	// What the daemon does after its answer (collecting, the history's transactions)
	// it does for one execution or for several at once, by the pace of the machine.
	moreCallsDaemonPercent = 20
	moreCallsBare          = 4
	moreFaultsPercent      = 10 // pages that the kernel mapped around a fault, stacks of other threads
	moreFaults             = 16
	moreThreads            = 2 // the scheduler starts one when another is in a system call for long
)

// boundOfCalls is the most system calls that a row allows.
func (r *row) boundOfCalls() int {
	switch {
	case r.Process == "capsuled":
		return r.Calls + r.Calls*moreCallsDaemonPercent/100 + moreCalls
	case scheduled(r.Process):
		return r.Calls + r.Calls*moreCallsPercent/100 + moreCalls
	}
	return r.Calls + moreCallsBare
}

// against names what a measured row has more than the budget.
func (r *row) against(b *row) error {
	var errs []error
	over := func(what string, have, budget, bound int64) {
		if have > bound {
			errs = append(errs, fmt.Errorf("%s: %d %s; the budget is %d, and %d with its room", b.key(), have, what, budget, bound))
		}
	}
	over("system calls", int64(r.Calls), int64(b.Calls), int64(b.boundOfCalls()))
	over("page faults", r.Faults, b.Faults, b.Faults+b.Faults*moreFaultsPercent/100+moreFaults)
	over("threads", int64(r.Threads), int64(b.Threads), int64(b.Threads+moreThreads))
	over("processes started", int64(r.Starts), int64(b.Starts), int64(b.Starts))
	over("programs executed", int64(r.Execs), int64(b.Execs), int64(b.Execs))
	if errs == nil {
		return nil
	}
	return fmt.Errorf("%w\n%s", errors.Join(errs...), r.grown(b))
}

// grown lists the calls of which there are more than when the budget was written.
func (r *row) grown(b *row) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.Names)) {
		if have, had := r.Names[name], b.Names[name]; have > had {
			fmt.Fprintf(&text, "  %s: %d, was %d\n", name, have, had)
		}
	}
	return text.String()
}

// slack says which numbers of the budget are far above what is measured now.
func (r *row) slack(b *row) string {
	const anyway = 20 // numbers that are small change by as much
	if r.Calls < b.Calls-b.Calls/5-anyway || r.Faults < b.Faults-b.Faults/5-anyway || r.Starts < b.Starts || r.Execs < b.Execs {
		return fmt.Sprintf("%s: %d calls and %d faults now, the budget has %d and %d: lower it with -update", b.key(), r.Calls, r.Faults, b.Calls, b.Faults)
	}
	return ""
}

// wider is a row with the larger of each number.
func (r row) wider(b row) row {
	r.Calls, r.Faults, r.Threads = max(r.Calls, b.Calls), max(r.Faults, b.Faults), max(r.Threads, b.Threads)
	r.Starts, r.Execs = max(r.Starts, b.Starts), max(r.Execs, b.Execs)
	names := maps.Clone(r.Names)
	for name, n := range b.Names {
		names[name] = max(names[name], n)
	}
	r.Names = names
	return r
}

// narrower is a row with the smaller of each number.
func (r row) narrower(b row) row {
	r.Calls, r.Faults, r.Threads = min(r.Calls, b.Calls), min(r.Faults, b.Faults), min(r.Threads, b.Threads)
	r.Starts, r.Execs = min(r.Starts, b.Starts), min(r.Execs, b.Execs)
	names := maps.Clone(r.Names)
	for name, n := range names {
		names[name] = min(n, b.Names[name])
	}
	r.Names = names
	return r
}

// hostKind is what decides about the amount of work, besides the programs.
func hostKind() string {
	kind := "cgroup v1"
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		kind = "cgroup v2"
	}
	user := "user"
	if os.Geteuid() == 0 {
		user = "root"
	}
	return kind + ", " + user + ", " + runtime.GOARCH
}

// TestBudget measures as this user and, when this is root, as nobody too.
func TestBudget(t *testing.T) {
	budget := readRows(t)
	measured := measure(t)
	if os.Getenv(measuringFor) != "" {
		writeRows(t, os.Getenv(measuringFor), measured)
		return
	}
	if os.Geteuid() == 0 && slow() == 1 { // slow machines are started once for each user
		measured = append(measured, measureAsNobody(t)...)
	}
	if *update {
		writeRows(t, file, renewed(budget, measured))
		return
	}
	measured = withRows(t, budget, measured)
	seen := map[string]bool{}
	for i := range measured {
		m := &measured[i]
		seen[m.Scenario+m.Host] = true
		b := slices.IndexFunc(budget, func(b row) bool { return b.key() == m.key() })
		if b < 0 {
			t.Errorf("%s: not in %s; see the comment of this package for -update", m.key(), file)
			continue
		}
		if err := m.against(&budget[b]); err != nil {
			t.Error(err)
		}
		if s := m.slack(&budget[b]); s != "" {
			t.Log(s)
		}
	}
	// A process that is no longer there has left its row behind.
	for i := range budget {
		b := &budget[i]
		if seen[b.Scenario+b.Host] && !slices.ContainsFunc(measured, func(m row) bool { return m.key() == b.key() }) {
			t.Errorf("%s: nothing of that kind ran; take its row out with -update", b.key())
		}
	}
}

// withRows leaves out the kinds of host that the budget knows nothing of, and
// tells what their rows would be: somebody has to look at them once. Where skips
// count as failures, so does this.
func withRows(t *testing.T, budget, measured []row) (known []row) {
	t.Helper()
	for _, m := range measured {
		if slices.ContainsFunc(budget, func(b row) bool { return b.Host == m.Host }) {
			known = append(known, m)
			continue
		}
		line, err := json.Marshal(m)
		tell := t.Logf
		if os.Getenv("CAPSULE_TEST_STRICT") == "1" {
			tell = t.Errorf
		}
		tell("%s has no rows for this kind of host; this one would be\n%s %v", file, line, err)
	}
	if len(known) == 0 && !t.Failed() {
		t.Skip("no row is for this kind of host")
	}
	return known
}

// TestTheBudgetNoticesMore keeps the comparison from agreeing to everything.
func TestTheBudgetNoticesMore(t *testing.T) {
	b := row{Process: "capsule-shim", Calls: 100, Faults: 100, Threads: 4, Starts: 1, Execs: 1}
	if err := b.against(&b); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*row){
		"system calls": func(r *row) { r.Calls = 114 }, "page faults": func(r *row) { r.Faults = 127 }, "threads": func(r *row) { r.Threads = 7 },
		"processes": func(r *row) { r.Starts = 2 }, "programs": func(r *row) { r.Execs = 2 },
	} {
		r := b
		change(&r)
		if err := r.against(&b); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.Process = "init"
	r := b
	if r.Calls += moreCallsBare + 1; r.against(&b) == nil {
		t.Error("init: five more calls fit")
	}
}

// renewed is the budget with measured rows in the place of those of the same
// scenarios and hosts.
func renewed(budget, measured []row) []row {
	kept := slices.DeleteFunc(slices.Clone(budget), func(b row) bool {
		return slices.ContainsFunc(measured, func(m row) bool { return m.Scenario == b.Scenario && m.Host == b.Host })
	})
	for _, m := range measured {
		if i := slices.IndexFunc(budget, func(b row) bool { return b.key() == m.key() }); *merge && i >= 0 {
			m = m.wider(budget[i])
		}
		kept = append(kept, m)
	}
	slices.SortFunc(kept, func(a, b row) int { return cmp.Compare(a.key(), b.key()) })
	return kept
}

func readRows(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && (*update || os.Getenv(measuringFor) != "") {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return parseRows(t, text)
}

func parseRows(t *testing.T, text []byte) []row {
	t.Helper()
	var rows []row
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// writeRows writes one row a line, so that a change of one is a line of a diff.
func writeRows(t *testing.T, path string, rows []row) {
	t.Helper()
	var b bytes.Buffer
	for i, r := range rows {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(map[bool]string{true: "[\n", false: ",\n"}[i == 0])
		b.Write(text)
	}
	b.WriteString("\n]\n")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
