package escape

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// object is a JSON object of a request.
type object map[string]any

// answer is what capsulectl said.
type answer struct {
	spec.Response
	exit int
	out  string // stdout of the payload
}

// request runs the attacker with the given attacks, and with changes.
func request(attacks []string, changes ...func(object)) object {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	r := object{
		"command":    append([]string{attacker, "attack"}, attacks...),
		"timeout_ms": patient(time.Minute).Milliseconds(),
		"isolation":  object{"bind_mounts": []any{object{"source": exe, "destination": attacker}}},
	}
	for _, change := range changes {
		change(r)
	}
	return r
}

// isolation sets a field of isolation.
func isolation(key string, value any) func(object) {
	return func(r object) { r["isolation"].(object)[key] = value }
}

// resource sets a field of resources.
func resource(key string, value any) func(object) {
	return func(r object) {
		if r["resources"] == nil {
			r["resources"] = object{}
		}
		r["resources"].(object)[key] = value
	}
}

// field sets a field of the request.
func field(key string, value any) func(object) { return func(r object) { r[key] = value } }

// bind adds a bind mount.
func bind(source, destination string, readonly bool) func(object) {
	return func(r object) {
		iso := r["isolation"].(object)
		binds, _ := iso["bind_mounts"].([]any)
		iso["bind_mounts"] = append(slices.Clone(binds), object{"source": source, "destination": destination, "readonly": readonly})
	}
}

// unfiltered runs without a filter, which takes a policy that permits it, so
// that what stands behind the filter is tried.
func unfiltered(r object) { isolation("seccomp", "unconfined")(r) }

// prepare makes the call of capsulectl for a request.
func prepare(t testing.TB, r object) *exec.Cmd {
	t.Helper()
	bin, err := programs()
	must(t, err)
	document, err := json.Marshal(r)
	must(t, err)
	cmd := exec.Command(filepath.Join(bin, "capsulectl"), "run", "--json")
	cmd.Env = []string{"CAPSULE_STATE=" + stateDir(), "PATH=/usr/bin:/bin", "HOME=/nonexistent"}
	if r["isolation"].(object)["seccomp"] == "unconfined" {
		file := filepath.Join(t.TempDir(), "config.toml")
		must(t, os.WriteFile(file, []byte("[security]\nallow_unconfined = true\n"), 0o600))
		cmd.Env = append(cmd.Env, "CAPSULE_CONFIG="+file)
	}
	cmd.Stdin = bytes.NewReader(document)
	return cmd
}

// run sends a request through the built programs. capsulectl is killed when it
// does not come back, and the test fails.
func run(t testing.TB, r object) answer {
	t.Helper()
	return finish(t, prepare(t, r))
}

func finish(t testing.TB, cmd *exec.Cmd) answer {
	t.Helper()
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	must(t, cmd.Start())
	timer := time.AfterFunc(patient(2*time.Minute), func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Fatal("capsulectl did not come back")
	}
	a := answer{exit: cmd.ProcessState.ExitCode()}
	if err := json.Unmarshal(out.Bytes(), &a.Response); err != nil {
		t.Fatalf("capsulectl: %v\n%s\n%s", err, out.String(), log.String())
	}
	if a.Stdout != nil {
		a.out = *a.Stdout
	}
	_ = err // the exit code says it
	executions.Store(a.ExecutionID, true)
	return a
}

// executions are the ids of all executions of this process.
var executions sync.Map

// results are the lines of the attacker, by attack.
func (a answer) results() map[string]string {
	results := map[string]string{}
	for line := range strings.Lines(a.out) {
		name, result, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		results[name] = result
	}
	return results
}

// expect runs attacks and compares what each gives; " or " separates what
// different kernels say.
func expect(t *testing.T, want map[string]string, changes ...func(object)) {
	t.Helper()
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	a := run(t, request(names, changes...))
	got := a.results()
	for _, name := range names {
		if !slices.Contains(strings.Split(want[name], " or "), got[name]) {
			t.Errorf("%s gives %q, want %q", name, got[name], want[name])
		}
	}
	if len(got) < len(names) {
		t.Errorf("%d attacks, exit %d, error %+v\n%s", len(names), a.exit, a.Error, a.out)
	}
}

// refused checks that a request is refused with a code, and, when errno is not
// empty, with that errno in the details.
func refused(t *testing.T, why string, r object, code, errno string) {
	t.Helper()
	a := run(t, r)
	have := ""
	if a.Error != nil {
		have = a.Error.Code
	}
	if have != code || a.exit != 125 {
		t.Errorf("%s: exit %d, %s instead of %s: %+v\n%.300s", why, a.exit, have, code, a.Error, a.out)
		return
	}
	if got, _ := a.Error.Details["errno"].(string); errno != "" && !slices.Contains(strings.Split(errno, " or "), got) {
		t.Errorf("%s: errno %s instead of %s: %+v", why, got, errno, a.Error)
	}
}

// running is a sandbox whose attacker waits for the end of its stdin.
type running struct {
	cmd   *exec.Cmd
	stdin *os.File
	lines *bytes.Buffer
}

// hold starts a sandbox that makes what the attacks make and then waits.
func hold(t *testing.T, attacks []string, flags ...string) *running {
	t.Helper()
	bin, err := programs()
	must(t, err)
	exe, err := os.Executable()
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	out, in, err := os.Pipe()
	must(t, err)
	defer out.Close()
	args := append([]string{"run", "-i", "--bind", exe + ":" + attacker + ":ro"}, flags...)
	args = append(append(args, "--", attacker, "attack"), append(attacks, "wait")...)
	cmd := exec.Command(filepath.Join(bin, "capsulectl"), args...)
	cmd.Env = []string{"CAPSULE_STATE=" + stateDir(), "PATH=/usr/bin:/bin", "HOME=/nonexistent"}
	h := &running{cmd: cmd, stdin: w, lines: new(bytes.Buffer)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, in, in
	must(t, cmd.Start())
	in.Close()
	must(t, out.SetReadDeadline(time.Now().Add(patient(time.Minute))))
	buf := make([]byte, 4096)
	for !strings.Contains(h.lines.String(), "ready\n") {
		n, err := out.Read(buf)
		h.lines.Write(buf[:n])
		if err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("the sandbox did not start: %v\n%s", err, h.lines)
		}
	}
	t.Cleanup(func() { h.end() })
	return h
}

// end lets the attacker go and waits for capsulectl.
func (h *running) end() {
	if h.stdin == nil {
		return
	}
	_ = h.stdin.Close()
	h.stdin = nil
	timer := time.AfterFunc(patient(30*time.Second), func() { _ = h.cmd.Process.Kill() })
	_ = h.cmd.Wait() // its output is not read any more
	timer.Stop()
}

// children reaps what has ended and lists the pids of our children that live.
func children(t testing.TB) []string {
	t.Helper()
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.ECHILD {
			return nil
		}
		if err == nil && pid == 0 {
			break
		}
	}
	var all []string
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may have ended
		all = append(all, strings.Fields(string(text))...)
	}
	return all
}
