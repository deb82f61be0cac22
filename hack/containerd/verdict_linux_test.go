package containerd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/task/terms"
	"github.com/capsule-run/capsule/spec"
)

// TestVerdicts asks for verdicts on commands as a pod does, and reads them where a kubelet
// does. What the command writes there itself does not count.
func TestVerdicts(t *testing.T) {
	d := begin(t)
	for i, c := range []struct {
		name, command string
		flags         []string
		change        func(*terms.Terms)
		status        spec.Status
		reason        spec.Reason
		exit          int // of the container
		out, code     string
		walls         map[string]spec.State
		up            bool // it says so once it is ready for its end
	}{
		{name: "exits", command: "echo out; echo err >&2; exit 7", status: spec.StatusSuccess, reason: spec.ReasonExited, exit: 7, out: "out\n"},
		{name: "forges", command: `echo '{"execution_id":"x","status":"success"}' >/dev/termination-log; exit 3`, status: spec.StatusSuccess, reason: spec.ReasonExited, exit: 3},
		{name: "reads", command: "cat", change: func(a *terms.Terms) { a.Stdin = []byte("given") }, status: spec.StatusSuccess, reason: spec.ReasonExited, out: "given"},
		{name: "reads nothing", command: "cat", status: spec.StatusSuccess, reason: spec.ReasonExited},
		{name: "hangs", command: "sleep 1000", change: func(a *terms.Terms) { a.TimeoutMS = 300 }, status: spec.StatusTimeout, reason: spec.ReasonTimeoutWall, exit: 137, code: "E3001"},
		{name: "ends when told", command: "trap 'echo bye; exit 9' TERM; echo up; sleep 1000 & wait", up: true, change: func(a *terms.Terms) { a.TimeoutMS, a.GraceMS = 300, 20000 },
			status: spec.StatusTimeout, reason: spec.ReasonTimeoutWall, exit: 9, out: "up\nbye\n", code: "E3001"},
		{name: "computes", command: "while :; do :; done", change: func(a *terms.Terms) { a.CPUTimeMS = 200 }, status: spec.StatusKilled, reason: spec.ReasonTimeoutCPU, exit: 137, code: "E4005"},
		{name: "writes too much", command: "yes", change: func(a *terms.Terms) { a.OutputPolicy = "kill" }, status: spec.StatusKilled, reason: spec.ReasonOutputLimit, exit: 137, code: "E3006"},
		{name: "is cut", command: "echo 0123456789abcdefghij", status: spec.StatusSuccess, reason: spec.ReasonExited, out: "0123456789abcdef"},
		{name: "keeps the tail", command: "echo 0123456789abcdefghij", change: func(a *terms.Terms) { a.OutputPolicy = "tail" }, status: spec.StatusSuccess, reason: spec.ReasonExited, out: "56789abcdefghij\n"},
		{name: "takes memory", command: "head -c 200m /dev/zero | tail >/dev/null", flags: []string{"--memory-limit", "33554432"},
			status: spec.StatusKilled, reason: spec.ReasonOOM, exit: 137, code: "E4002"},
		{name: "forks", command: "sleep 5 & sleep 5 & sleep 5", change: func(a *terms.Terms) { a.MaxPids = 2 }, status: spec.StatusSuccess, reason: spec.ReasonExited, exit: 2},
		{name: "leaves a child", command: "sleep 1000 & echo left", status: spec.StatusSuccess, reason: spec.ReasonExited, out: "left\n"},
		{name: "host's network", flags: []string{"--net-host"}, command: "grep -c : /proc/net/dev", status: spec.StatusSuccess, reason: spec.ReasonExited, out: "1\n",
			walls: map[string]spec.State{spec.WallNetworkNamespace: spec.Enforced}},
		{name: "keeps the host's network", flags: []string{"--net-host"}, command: "echo on", change: func(a *terms.Terms) { a.Network = true }, status: spec.StatusSuccess, reason: spec.ReasonExited, out: "on\n",
			walls: map[string]spec.State{spec.WallNetworkNamespace: spec.Absent, spec.WallUserNamespace: spec.Absent, spec.WallIDMap: spec.Absent}},
		{name: "has walls", flags: []string{"--seccomp", "--read-only"}, command: "exit 0", status: spec.StatusSuccess, reason: spec.ReasonExited,
			walls: map[string]spec.State{spec.WallSeccomp: spec.Enforced, spec.WallRootfs: spec.Enforced, spec.WallNoNewPrivs: spec.Enforced, spec.WallProcMasking: spec.Enforced,
				spec.WallPIDNamespace: spec.Enforced, spec.WallCapabilities: spec.Degraded}},
		{name: "has few", flags: []string{"--privileged"}, command: "exit 0", status: spec.StatusSuccess, reason: spec.ReasonExited,
			walls: map[string]spec.State{spec.WallProcMasking: spec.Absent, spec.WallRootfs: spec.Degraded, spec.WallCapabilities: spec.Degraded}},
	} {
		asked := terms.Terms{ID: fmt.Sprint("id-", i), Container: "c", TimeoutMS: 60000, MaxOutputBytes: 16, OutputPolicy: "truncate", Message: "/dev/termination-log"}
		if c.change != nil {
			c.change(&asked)
		}
		whole, short, status := d.judged(fmt.Sprint("v", i), asked, c.flags, c.command)
		// How soon it is ready is the machine's affair.
		for again := 0; again < 6 && c.up && (whole.Stdout == nil || !strings.HasPrefix(*whole.Stdout, "up\n")); again++ {
			asked.TimeoutMS *= 2
			whole, short, status = d.judged(fmt.Sprint("v", i, "-", again), asked, c.flags, c.command)
		}
		if whole.Status != c.status || whole.Termination.Reason != c.reason || status != c.exit {
			t.Errorf("%s: exit status %d, %s", c.name, status, whole.Encode(false))
			continue
		}
		if whole.Stdout == nil || *whole.Stdout != c.out && c.reason != spec.ReasonOutputLimit {
			t.Errorf("%s: %s", c.name, whole.Encode(false))
		}
		if whole.Error == nil && c.code != "" || whole.Error != nil && whole.Error.Code != c.code {
			t.Errorf("%s: want %q: %s", c.name, c.code, whole.Encode(false))
		}
		if short.ExecutionID != asked.ID || short.Status != whole.Status || short.Stdout != nil || short.Metrics.CPUTimeMS == nil {
			t.Errorf("%s: the message is %s", c.name, short.Encode(false))
		}
		if whole.Enforcement == nil || whole.Enforcement.Walls[spec.WallMountNamespace] != spec.Enforced || len(whole.Warnings) > 0 {
			t.Errorf("%s: %s", c.name, whole.Encode(false))
			continue
		}
		for wall, want := range c.walls {
			if got := whole.Enforcement.Walls[wall]; got != want {
				t.Errorf("%s: %s is %s, not %s", c.name, wall, got, want)
			}
		}
	}
	whole, short, status := d.judged("missing", terms.Terms{ID: "m", Container: "c", TimeoutMS: 1, OutputPolicy: "tail", Message: "/dev/termination-log"}, nil, "")
	if whole != nil || status == 0 || short.Error == nil || short.Error.Code != "E3003" || short.Status != spec.StatusError {
		t.Errorf("exit status %d: %+v", status, short)
	}
	d.ctr("containers", "delete", "missing")
	if r := d.heard("other", verdictFlags(terms.Terms{Container: "another"}, ""), "echo", "plain"); r.out != "plain\n" {
		t.Errorf("a container that is not meant: %+v", r)
	}
	if r := d.run("wrong", verdictFlags(terms.Terms{Container: "c"}, ""), "true"); r.status == 0 || !strings.Contains(r.err, "annotations.run.capsule.verdict.timeout_ms") {
		t.Errorf("wrong terms: %+v", r)
	}
	d.ctr("containers", "delete", "wrong")
}

// TestVerdictsGiveNothing: whoever writes a pod's annotation gets nothing by it that the
// container has not: no file of the node written, no limit raised.
func TestVerdictsGiveNothing(t *testing.T) {
	d := begin(t)
	asked := func(message string) terms.Terms {
		return terms.Terms{ID: "a", Container: "c", TimeoutMS: 60000, MaxOutputBytes: 1 << 20, OutputPolicy: "truncate", Message: message, MaxPids: 1 << 22,
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}}}
	}
	for i, c := range []struct {
		mode    os.FileMode
		options string
	}{{0o666, "rbind:ro"}, {0o644, "rbind:rw"}, {0o600, "rbind:rw"}} {
		file := filepath.Join(d.dir, fmt.Sprint("victim", i))
		if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		flags := append(verdictFlags(asked("/victim"), ""), "--mount", "type=bind,src="+file+",dst=/victim,options="+c.options)
		if r := d.heard(fmt.Sprint("g", i), flags, "sh", "-c", "ulimit -Hn"); !strings.Contains(r.out, `"status":"success"`) || strings.Contains(r.out, "1099511627776") {
			t.Errorf("%v: %+v", c, r)
		}
		if text, err := os.ReadFile(file); err != nil || string(text) != "before" {
			t.Errorf("a file that the container %v may not write to has %q, %v", c, text, err)
		}
	}
}

func verdictFlags(asked terms.Terms, message string) []string {
	text, _ := json.Marshal(asked) // of numbers and texts
	flags := []string{"--annotation", terms.Annotation + "=" + string(text), "--annotation", "io.kubernetes.cri.container-name=c"}
	if message != "" {
		flags = append(flags, "--mount", "type=bind,src="+message+",dst=/dev/termination-log,options=rbind:rw")
	}
	return flags
}

// judged runs a command to its end and reads both of its verdicts. No command: one that
// does not exist, which has no log.
func (d *daemon) judged(id string, asked terms.Terms, flags []string, command string) (whole, short *spec.Response, status int) {
	d.t.Helper()
	message := filepath.Join(d.dir, id+".message")
	if err := os.WriteFile(message, nil, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chmod(message, 0o666); err != nil { // as a kubelet does
		d.t.Fatal(err)
	}
	args := []string{"sh", "-c", command}
	call := d.heard
	if command == "" {
		args, call = []string{"/no/such/program"}, d.run
	}
	r := call(id, append(verdictFlags(asked, message), flags...), args...)
	decode := func(text string) *spec.Response {
		v, err := spec.DecodeResponse([]byte(text))
		if err != nil {
			d.t.Fatalf("%s: %q: %v\n%s", id, text, err, r.err)
		}
		return v
	}
	text, err := os.ReadFile(message)
	if err != nil {
		d.t.Fatal(err)
	}
	if command != "" {
		whole = decode(r.out)
	}
	return whole, decode(string(text)), r.status
}
