package main

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

const (
	idA = "aaaa1111-0000-4000-8000-000000000000"
	idB = "aaaa2222-0000-4000-8000-000000000000"
	idC = "cccc3333-0000-4000-8000-000000000000"
)

// populated has one execution that lives, one that failed and one that was killed.
func populated(b *bench) {
	exit7 := exited(7)
	b.supervisor.add(idA, nil, "sleep", "60")
	r := b.supervisor.add(idB, exit7, "sh", "-c", "exit 7")
	r.out, r.errs = "one\ntwo\nthree\n", "bad\n"
	r.Labels = map[string]string{"user": "42", "evil": "\x1b]0;x\a"}
	b.supervisor.add(idC, signalled(spec.StatusKilled, spec.ReasonOOM, 9), "\x1b[2Jls", "\u202egpj.exe", "a\nb")
}

// anyJSON decodes exactly one document of any form.
func anyJSON(t *testing.T, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("no JSON: %v: %q", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("something follows the document: %q", text)
	}
	return v
}

// TestVerbs tells what every verb prints and asks for, in both forms.
func TestVerbs(t *testing.T) {
	for _, c := range []struct {
		args  string
		code  int
		out   []string // parts of stdout
		err   string   // part of stderr; empty: there is nothing
		calls string   // the end of the log of calls
	}{
		{"ps", 0, []string{"ID", "COMMAND", idA, "running", "sleep 60"}, "", "list"},
		{"ps -a", 0, []string{idB, "success  exit 7", "1.5 s", `user=42`, `sh -c "exit 7"`, idC, "killed", "oom", `"\x1b[2Jls" "\u202egpj.exe" "a\nb"`}, "", "list"},
		{"ps -aq -n 2", 0, []string{idA + "\n" + idB + "\n"}, "", "list"},
		{"ps -q --filter id=cccc", 0, nil, "", "list"},
		{"ps -a -q --filter status=killed --filter label=user=42 --filter label=x", 0, nil, "", "list"},
		{"ps -o json -a", 0, []string{`"execution_id":"` + idB + `"`, `"exit_code":7`, `"reason":"exited"`}, "", "list"},
		{"ps -a -o template={{.execution_id}}={{.status}}", 0, []string{idA + "=running\n" + idB + "=success\n" + idC + "=killed\n"}, "", "list"},
		{"ps -o table", 0, []string{"COMMAND", idA}, "", "list"},
		{"ps -o template={{.nothing}}", 125, nil, "E1001: flag --output: output:1:2: executing", "list"},
		{"inspect -o template={{.termination.reason}}:{{.exit_code}} aaaa2", 0, []string{"exited:7\n"}, "", "list; inspect"},
		{"wait -o template={{.exit_code}} " + idB, 7, []string{"7\n"}, "", "wait"},
		{"wait -o template={{.exit_code}} dddd", 125, nil, "capsule: E", "list"},
		{"inspect aaaa2", 0, []string{"success, exit 7", `sh -c "exit 7"`, `evil=\x1b]0;x\a`, "user=42", "ran", "1.5 s", "timeout 30 s"}, "", "list; inspect"},
		{"inspect -o json aaaa2", 0, []string{`"exit_code":7`}, "", "list; inspect"},
		{"inspect -o json --details " + idC, 0, []string{`"request":{`, `"response":{`, `"pid":null`}, "", "inspect"},
		{"logs aaaa2", 0, []string{"one\ntwo\nthree\n"}, "bad\n", "list; attach"},
		{"logs --tail 2 --stdout " + idB, 0, []string{"two\nthree\n"}, "", "attach"},
		{"logs " + idB + " --tail 0 -f", 0, nil, "", "attach; attach"},
		{"logs --stderr " + idB, 0, nil, "bad\n", "attach"},
		{"logs -o json --tail 1 " + idB, 0, []string{`"stdout":"three\n"`, `"stderr":"bad\n"`}, "", "attach"},
		{"logs -f -o json --stdout " + idB, 0, []string{`{"stream":"stdout",`, `"data":"one\ntwo\nthree\n"`}, "", "attach"},
		{"wait " + idB, 7, nil, "", "wait"},
		{"wait cccc", 137, nil, "capsule: killed: out of memory at 256MiB", "list; wait; inspect"},
		{"wait -o json " + idB, 7, []string{`"exit_code":7`}, "", "wait"},
		{"wait " + idB + " " + idC, 7, []string{idB + " 7 exited with 7\n", idC + " 137 oom with signal 9\n"}, "", ""},
		{"stop aaaa1", 0, []string{idA + "\n"}, "", "kill terminated; wait"},
		{"stop -t 0 -o json " + idA, 0, []string{`"status":"killed"`}, "", "kill all; wait"},
		{"stop " + idB, 0, []string{idB}, "", "kill terminated; kill all; wait"},
		{"kill -s TERM aaaa1", 0, []string{idA + "\n"}, "", "kill terminated"},
		{"kill -o json --all " + idA, 0, []string{`"delivered":true`}, "", "kill all"},
		{"kill " + idB, 125, nil, "E6003: signal the command: it does not run", "kill killed"},
		{"rm " + idB, 0, []string{idB}, "", "remove "},
		{"rm -f -o json " + idA, 0, []string{`"removed":true`}, "", "remove force"},
		{"rm " + idA, 125, nil, "it has not ended. Stop it, or give --force.", "remove "},
		{"prune -f --before 24h --filter label=user=42", 0, []string{"removed 2 executions, 2KiB\n"}, "", "prune"},
		{"prune -o json", 0, []string{`{"removed":2,"bytes":2048}`}, "", "prune"},
		{"info", 0, []string{"capsuled, pid 99", "running", "3 of at most 8"}, "", "info"},
		{"info -o json", 0, []string{`"max_concurrent":8`}, "", "info"},
		{"events --no-follow", 0, []string{" 5 execution.ended " + idB + " reason=exited\n", " 6 "}, "", "events"},
		{"events --since 5 --no-follow -o json", 0, []string{`{"sequence":6,`}, "", "events"},
		{"events", 0, []string{" 6 "}, "", "info; events"},
		{"stats", 0, []string{"1.12 s", "64MiB/256MiB 25%", "3/100", "sleep 60"}, "", "stats; stats"},
		{"stats -o json " + idA, 0, []string{`"memory_limit_bytes":268435456`}, "", "stats " + idA},
	} {
		t.Run(c.args, func(t *testing.T) {
			b := newBench("")
			populated(b)
			b.supervisor.info = api.Info{Pid: 99, Running: 3, MaxConcurrent: 8, Sequence: 5}
			b.supervisor.events = []api.Event{
				{Sequence: 5, Type: api.EventEnded, ExecutionID: idB, Attributes: map[string]string{"reason": "exited"}}, {Sequence: 6, Type: "x"}}
			b.supervisor.stats = [][]api.Stats{{counters(1000)}, {counters(1125)}}
			code := b.main(append(strings.Fields(c.args), "--address", "/there"))
			if code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			for _, part := range c.out {
				if !strings.Contains(b.out.String(), part) {
					t.Errorf("stdout lacks %q:\n%s", part, b.out.String())
				}
			}
			if c.out == nil && c.code == 0 && strings.HasPrefix(c.args, "logs") && b.out.String() != "" {
				t.Errorf("stdout: %q", b.out.String())
			}
			if !strings.Contains(b.errOut.String(), c.err) || (c.err == "") != (b.errOut.String() == "") {
				t.Errorf("stderr %q, want %q", b.errOut.String(), c.err)
			}
			if !strings.HasSuffix(b.supervisor.log(), c.calls) {
				t.Errorf("calls %q, want %q", b.supervisor.log(), c.calls)
			}
			if strings.Contains(c.args, "json") && !strings.Contains(c.args, "logs -f") {
				anyJSON(t, b.out.String())
			}
			if !strings.Contains(c.args, "logs") && !strings.Contains(c.args, "json") && strings.ContainsAny(b.out.String()+b.errOut.String(), "\x1b\a\u202e") {
				t.Errorf("a control character of the payload reached the terminal: %q", b.out.String())
			}
		})
	}
}

func counters(cpu float64) api.Stats {
	memory, pids := int64(80<<20), int64(7)
	return api.Stats{ID: idA, Command: []string{"sleep", "60"}, MemoryLimit: 256 << 20, PidsLimit: 100, Memory: ptr[int64](64 << 20), Pids: ptr[int64](3),
		Metrics: &spec.Metrics{CPUTimeMS: &cpu, MaxMemoryBytes: &memory, MaxPids: &pids}}
}

// TestErrorsOfVerbs tells that every error has a code, in both forms, and exits with 125.
func TestErrorsOfVerbs(t *testing.T) {
	for _, c := range []struct {
		args string
		code fault.Code
		says string
	}{
		{"inspect aaaa", fault.InvalidValue, "It could be " + idA + " (sleep 60), " + idB + ` (sh -c "exit 7").`},
		{"inspect dddd", fault.NotFound, "no execution has an id that begins with dddd"},
		{"inspect dddd3333-0000-4000-8000-000000000000", fault.NotFound, "there is no execution"},
		{"logs x\x1b[2Jy", fault.InvalidValue, `x\x1b[2Jy is neither an id`},
		{"inspect", fault.MissingField, "give the id"},
		{"attach", fault.MissingField, "give the id"},
		{"logs aaaa1 aaaa2", fault.InvalidValue, "takes only one id"},
		{"ps aaaa", fault.InvalidValue, "takes no arguments"},
		{"ps --al", fault.InvalidValue, "Did you mean --all?"},
		{"ps --filter status=dead", fault.InvalidValue, "There are queued, starting, running"},
		{"ps --filter colour=red", fault.InvalidValue, "no filter"},
		{"ps -n 0", fault.OutOfRange, "less than 1"},
		{"logs --tail x aaaa1", fault.InvalidValue, "not a number"},
		{"kill -s NOSUCH aaaa1", fault.InvalidValue, "no signal"},
		{"kill -s 65 aaaa1", fault.InvalidValue, "no signal"},
		{"stop -t 10 aaaa1", fault.InvalidValue, "Write 10s or 10ms."},
		{"stop -t x aaaa1", fault.InvalidValue, "is not a duration"},
		{"stop -t -1 aaaa1", fault.InvalidValue, "is not a duration"},
		{"kill -9 aaaa1", fault.InvalidValue, "Did you mean --signal 9?"},
		{"ps --format=json", fault.InvalidValue, "Did you mean --output json"},
		{"prune --before x", fault.InvalidValue, "is not a duration"},
		{"prune --filter status=error", fault.InvalidValue, "no filter"},
		{"events --since x", fault.InvalidValue, "no sequence number"},
		{"events --since x", fault.InvalidValue, "--since SEQ: begin after"},
		{"ps --output template={{", fault.InvalidValue, "unclosed action"},
		{"ps --output yaml", fault.InvalidValue, "neither human nor table, json"},
		{"ps --embedded", fault.InvalidValue, "cannot be combined"},
	} {
		for _, form := range []string{"human", "json"} {
			b := newBench("")
			populated(b)
			args := append(strings.Fields(c.args), "--address", "/there")
			if form == "json" && !strings.Contains(c.args, "yaml") {
				args = append(args, "-o", "json")
			}
			if code := b.main(args); code != spec.ExitRefused {
				t.Errorf("%s: exit %d", args, code)
			}
			if form == "human" || strings.Contains(c.args, "yaml") {
				if text := b.errOut.String(); !strings.Contains(text, string(c.code)) || !strings.Contains(text, c.says) || strings.Contains(text, "\x1b") || b.out.String() != "" {
					t.Errorf("%s: %q, stdout %q", args, text, b.out.String())
				}
				continue
			}
			r := document(t, b.out.String())
			if r.Error == nil || r.Error.Code != string(c.code) || !strings.Contains(r.Error.Message+r.Error.Hint, c.says) {
				t.Errorf("%s: %+v", args, r.Error)
			}
		}
	}
}

// TestSeveralIDs tells that one bad id does not keep the others from being served.
func TestSeveralIDs(t *testing.T) {
	b := newBench("")
	populated(b)
	if code := b.main([]string{"rm", "dddd", idB, "--address=/there"}); code != spec.ExitRefused || b.out.String() != idB+"\n" || !strings.Contains(b.errOut.String(), "E6007") {
		t.Errorf("exit %d, %q, %q", code, b.out.String(), b.errOut.String())
	}
	b = newBench("")
	populated(b)
	code := b.main([]string{"inspect", "-o", "json", "dddd", idB, "--address=/there"})
	all, ok := anyJSON(t, b.out.String()).([]any)
	if code != spec.ExitRefused || !ok || len(all) != 2 {
		t.Fatalf("exit %d: %s", code, b.out.String())
	}
	if e := all[0].(map[string]any)["error"].(map[string]any); e["code"] != "E6007" {
		t.Errorf("the first is %v", all[0])
	}
	if all[1].(map[string]any)["execution_id"] != idB {
		t.Errorf("the second is %v", all[1])
	}
}

// TestFilters tells what reaches the supervisor.
func TestFilters(t *testing.T) {
	b := newBench("")
	b.main(strings.Fields("ps --filter status=error --filter status=running --filter label=a=b=c --filter label=d --filter id=AB --address /there"))
	f := b.supervisor.filter
	if !f.All || !slices.Equal(f.Statuses, []string{"error", "running"}) || f.Labels["a"] != "b=c" || len(f.Labels) != 2 || f.IDPrefix != "ab" {
		t.Errorf("%+v", f)
	}
	b.main(strings.Fields("prune --before 24h --filter label=a=b --address /there"))
	if p := b.supervisor.prune; time.Since(p.Before).Round(time.Hour) != 24*time.Hour || p.Labels["a"] != "b" {
		t.Errorf("%+v", p)
	}
}

// TestPages tells that a list goes on over pages, up to its limit.
func TestPages(t *testing.T) {
	for args, want := range map[string]int{"ps -aq": 3, "ps -aq -n 2": 2, "ps -aq -n 9": 3} {
		b := newBench("")
		populated(b)
		b.supervisor.pageSize = 1
		b.main(append(strings.Fields(args), "--address=/there"))
		if n := strings.Count(b.out.String(), "\n"); n != want {
			t.Errorf("%s: %d lines", args, n)
		}
	}
	b := newBench("")
	if b.main([]string{"ps", "-o", "json", "--address=/there"}); b.out.String() != "[]\n" {
		t.Errorf("an empty list: %q", b.out.String())
	}
}

// TestStopInsists tells that a command that ignores SIGTERM is killed.
func TestStopInsists(t *testing.T) {
	b := newBench("")
	r := b.supervisor.add(idA, nil, "sleep")
	r.onKill = func(_ syscall.Signal, all bool) {
		if all {
			r.Response = signalled(spec.StatusKilled, spec.ReasonKilledByCaller, 9)
			r.end()
		}
	}
	if code := b.main([]string{"stop", "-t", "1ms", idA, "--address=/there"}); code != 0 || !strings.HasSuffix(b.supervisor.log(), "kill terminated; wait; kill all; wait") {
		t.Errorf("exit %d, %s, %s", code, b.supervisor.log(), b.errOut.String())
	}
}

// TestPruneAsks tells that a terminal is asked, and that no answer means no.
func TestPruneAsks(t *testing.T) {
	for answer, pruned := range map[string]bool{"y\n": true, "Yes\n": true, "n\n": false, "\n": false, "": false} {
		b := newBench(answer)
		b.columns = 80
		code := b.main([]string{"prune", "--address=/there"})
		if (code == 0) != pruned || (b.supervisor.prune != nil) != pruned || !strings.Contains(b.errOut.String(), "Forget every execution that has ended? [y/N] ") {
			t.Errorf("%q: exit %d, %q", answer, code, b.errOut.String())
		}
	}
}

// TestStatsTable tells the share of the CPU between two samples, and that what
// was not measured is not shown as 0.
func TestStatsTable(t *testing.T) {
	at := time.Unix(1000, 0)
	unknown := api.Stats{ID: idB, Command: []string{"x"}}
	one, two := counters(1000), counters(1500)
	one.Metrics.Pressure = &spec.Pressure{CPUSomeMS: ptr(100.0), MemorySomeMS: ptr(0.0)}
	two.Metrics.Pressure = &spec.Pressure{CPUSomeMS: ptr(130.0), MemorySomeMS: ptr(0.0), IOSomeMS: ptr(1.0)}
	two.Metrics.ThrottledMS = ptr(20.0)
	lines := statsTable(sample{at, []api.Stats{one}}, sample{at.Add(time.Second), []api.Stats{two, unknown}}, true).lines(0, false)
	want := []string{"aaaa1111-0000", "50.0%", "1.5", "s", "64MiB/256MiB", "25%", "80MiB", "3/100", "7", "-/-", "20", "ms", "3%/0%/-", "sleep", "60"}
	if !slices.Equal(strings.Fields(lines[1]), want) {
		t.Errorf("%q", lines[1])
	}
	if got := strings.Fields(lines[2]); !slices.Equal(got, strings.Fields("aaaa2222-0000 - - - - - - -/- - - x")) {
		t.Errorf("%q", lines[2])
	}
	if text := frame(lines, 4); text != "\x1b[H"+lines[0]+"\x1b[K\n"+lines[1]+"\x1b[K\n"+lines[2]+"\x1b[K\n\x1b[J" {
		t.Errorf("%q", text)
	}
	if text := frame([]string{"a", "b", "c", "d"}, 4); text != "\x1b[Ha\x1b[K\nb\x1b[K\nand 2 more\x1b[K\n\x1b[J" {
		t.Errorf("%q", text)
	}
}
