package verdicts

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// row is one payload with its verdict.
type row struct {
	name    string
	command []string
	// request and resources go over what every row has.
	request, resources object
	// configuration is that of capsule; empty: the host's.
	configuration string
	want          verdict
	// or are the other verdicts of a race.
	or []verdict
	// stdout is what must be kept of it; nil: anything.
	stdout *string
	// needs are the limits that the row asks for. Where one cannot be enforced
	// the row must be refused.
	needs []string
	also  func(*testing.T, *spec.Response)
}

// verdict is all that is exact about an end. Exit and signal below zero: null.
type verdict struct {
	status spec.Status
	reason spec.Reason
	code   string
	exit   int
	signal int
}

func exited(code int) verdict {
	return verdict{spec.StatusSuccess, spec.ReasonExited, "", code, -1}
}

func signaled(s syscall.Signal) verdict {
	return verdict{spec.StatusKilled, spec.ReasonSignaled, "E3002", -1, int(s)}
}

func timedOut(exit, signal int) verdict {
	return verdict{spec.StatusTimeout, spec.ReasonTimeoutWall, "E3001", exit, signal}
}

// failed is a limit that the command ran into and did not survive.
func failed(reason spec.Reason, code string, exit, signal int) verdict {
	return verdict{spec.StatusKilled, reason, code, exit, signal}
}

var (
	oom     = failed(spec.ReasonOOM, "E4002", -1, 9)
	tooMuch = failed(spec.ReasonOutputLimit, "E3006", -1, 9)
	cpuOver = failed(spec.ReasonTimeoutCPU, "E4005", -1, 9)
	refused = verdict{spec.StatusError, spec.ReasonRefused, "E4001", -1, -1}
)

func sh(script string) []string { return []string{"sh", "-c", script} }

func payload(args ...string) []string { return append([]string{"/payload", "act"}, args...) }

func text(s string) *string { return &s }

// TestVerdicts runs the whole table, and then looks for what it left.
func TestVerdicts(t *testing.T) {
	rows := concat(endings(), memory(), processes(), disks(), outputs(), clocks(), small(), asks())
	if len(rows) < 80 {
		t.Errorf("%d rows, want 80", len(rows))
	}
	self, err := filepath.EvalSymlinks("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkNothingLeft(t) })
	have := enforced(t, 0)
	for i, v := range rows {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel() // most of them wait
			v.check(t, newID(i), self, have)
		})
	}
}

func concat(lists ...[]row) []row {
	var all []row
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func (v *row) check(t *testing.T, id, self string, have map[string]bool) {
	request := object{"command": v.command, "timeout_ms": ms(30 * time.Second), "resources": v.resources,
		"isolation": object{"bind_mounts": []object{{"source": self, "destination": "/payload"}}}}
	if v.resources == nil {
		delete(request, "resources")
	}
	for k, value := range v.request {
		request[k] = value
	}
	if v.configuration != "" {
		request["isolation"].(object)["seccomp"] = "unconfined"
	}
	r := runUnder(t, v.configuration, id, request)
	want := v.want
	lacking := false
	for _, limit := range v.needs {
		if !have[limit] {
			want, lacking = refused, true
		}
	}
	got := verdict{r.Status, r.Termination.Reason, "", -1, -1}
	if r.Error != nil {
		got.code = r.Error.Code
		if r.Error.Message == "" || r.Error.Hint == "" && lacking {
			t.Errorf("the error says too little: %+v", r.Error)
		}
	}
	if r.ExitCode != nil {
		got.exit = *r.ExitCode
	}
	if r.Signal != nil {
		got.signal = *r.Signal
	}
	if slices.Contains(v.or, got) {
		want = got
	}
	if got != want {
		t.Errorf("\nhave %+v\nwant %+v\n%.3000s", got, want, r.Encode(true))
	}
	if lacking || got != want {
		return
	}
	if v.stdout != nil && (r.Stdout == nil || *r.Stdout != *v.stdout) {
		t.Errorf("stdout\nhave %.200q\nwant %.200q", deref(r.Stdout), *v.stdout)
	}
	if v.also != nil {
		v.also(t, r)
	}
}

func deref(s *string) string {
	if s == nil {
		return "(null)"
	}
	return *s
}

// TestAsUnprivilegedUser runs the table again as a user that has nothing.
func TestAsUnprivilegedUser(t *testing.T) {
	const marker = "CAPSULE_VERDICTS_UNPRIVILEGED"
	if os.Geteuid() != 0 || os.Getenv(marker) != "" || slow() > 1 {
		return // machines for tests are started once for each user
	}
	dir, err := os.MkdirTemp(scratch(), "unprivileged-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The checkout may be out of that user's reach.
	for from, to := range map[string]string{"/proc/self/exe": "verdicts.test", programs() + "/capsulectl": "capsulectl",
		programs() + "/capsule-shim": "capsule-shim", programs() + "/capsule-seccomp": "capsule-seccomp"} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("./verdicts.test", "-test.timeout=10m")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "CAPSULE_BIN=" + dir, marker + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// atLeast says what a metric must be; null fails.
func atLeast(t *testing.T, name string, have *int64, want int64) {
	t.Helper()
	if have == nil || *have < want {
		t.Errorf("%s is %v, want at least %d", name, show(have), want)
	}
}

func show[T any](p *T) any {
	if p == nil {
		return "null"
	}
	return *p
}

func detail(t *testing.T, r *spec.Response, key string) any {
	t.Helper()
	if r.Error == nil || r.Error.Details[key] == nil {
		t.Errorf("no %s in the details: %s", key, r.Encode(true))
		return nil
	}
	return r.Error.Details[key]
}

func warned(part string) func(*testing.T, *spec.Response) {
	return func(t *testing.T, r *spec.Response) {
		if !strings.Contains(strings.Join(r.Warnings, "\n"), part) {
			t.Errorf("no warning says %q: %q", part, r.Warnings)
		}
	}
}
