package failpoints

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// marks are the names of all steps, as they stand in the code.
func marks(t *testing.T, dirs ...string) []string {
	t.Helper()
	mark := regexp.MustCompile(`failpoint\.Here\("([a-z._]+)"\)`)
	var names []string
	for _, dir := range dirs {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range mark.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
		}
	}
	return names
}

// never is where nothing is recorded yet, so that there is no execution.
var never = map[string]bool{"supervisor.start.directory": true, "supervisor.start.request": true, "supervisor.start.named": true}

// decided is where the result stands, so that it must be the true one.
var decided = map[string]bool{
	"shim.end.recorded": true, "shim.end.reaped": true, "shim.end.torn_down": true, "shim.gone": true, "shim.answered": true, "shim.tidied": true,
}

// beside is what the shim does while the command runs, or has ended already.
var beside = map[string]bool{"shim.recorded": true, "shim.offered": true}

// ahead are the steps of a sandbox that is prepared before there is an execution, and
// of its use. The others are walked without one.
var ahead = map[string]bool{"shim.spare.named": true, "shim.spare.cgroup": true, "shim.spare.cloned": true,
	"supervisor.start.named": true, "supervisor.start.told": true, "shim.create.adopted": true}

// unconcerned is where only a sandbox is lost that nobody has: the execution gets
// another.
var unconcerned = map[string]bool{"shim.spare.named": true, "shim.spare.cgroup": true, "shim.spare.cloned": true}

// build compiles the programs that can die.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, b := range []struct{ cgo, tags, program string }{
		{"CGO_ENABLED=0", "urfave_cli_no_docs,failpoints", "./cmd/capsule-shim"},
		{"CGO_ENABLED=0", "urfave_cli_no_docs,failpoints", "./hack/failpoints/driver"},
		{"CGO_ENABLED=1", "urfave_cli_no_docs,osusergo,netgo", "./cmd/capsule-seccomp"},
	} {
		cmd := exec.Command("go", "build", "-tags", b.tags, "-o", dir+"/", b.program)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), b.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", b.program, err, out)
		}
	}
	return dir
}

func TestDeathAtEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs of its own")
	}
	// What outlives the driver becomes our child, and is seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	bin := build(t)
	state := filepath.Join(t.TempDir(), "state")
	names := marks(t, "../../supervisor", "../../shim")
	if len(names) < 20 {
		t.Fatalf("only %d steps are marked: %v", len(names), names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { dieAt(t, bin, state, name, ahead[name]) })
	}
	// What is on disk at these steps is not the same when a sandbox was ready.
	for _, name := range []string{"supervisor.start.request", "supervisor.start.record", "shim.begun", "shim.start.running", "shim.end.recorded"} {
		t.Run("ready/"+name, func(t *testing.T) { dieAt(t, bin, state, name, true) })
	}
}

func dieAt(t *testing.T, bin, state, name string, pool bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id := uuid.NewString()
	shim := filepath.Join(bin, "capsule-shim")
	driver := exec.CommandContext(ctx, filepath.Join(bin, "driver"), state, shim, id, "sh", "-c", "sleep 0.05; echo done; exit 5")
	driver.Env = []string{"PATH=" + os.Getenv("PATH"), "CAPSULE_FAILPOINT=" + name}
	if pool {
		driver.Env = append(driver.Env, "CAPSULE_DRIVER_POOL=1")
	}
	var stderr bytes.Buffer
	driver.Stderr = &stderr
	err := driver.Run()
	killed := driver.ProcessState != nil && driver.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if of := strings.HasPrefix(name, "supervisor."); killed != of {
		t.Fatalf("the driver ended with %v, %s", err, stderr.Bytes())
	}
	s, err := supervisor.NewDaemon(supervisor.DaemonOptions{Options: supervisor.Options{StateDir: state, ShimPath: shim}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.RecoverAll(ctx)
	if err != nil {
		t.Error(err)
	}
	me := s.As(uint32(os.Geteuid()))
	checkVerdict(t, ctx, me, id, name)
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
	if _, err := s.Housekeep(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	checkLeft(t, state, id)
	t.Logf("%+v", found)
}

// checkVerdict asks twice: a verdict does not change.
func checkVerdict(t *testing.T, ctx context.Context, s api.Supervisor, id, name string) {
	t.Helper()
	for range 2 {
		r, err := s.Wait(ctx, id)
		switch {
		case never[name]:
			if err == nil || fault.From(err, "").Code != fault.NotFound {
				t.Errorf("got %v, %v for an execution that was never recorded", r, err)
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		out, err := r.StdoutBytes()
		if err != nil {
			t.Error(err)
		}
		finished := r.Status == spec.StatusSuccess && r.ExitCode != nil && *r.ExitCode == 5 && string(out) == "done\n"
		lost := r.Status == spec.StatusError && r.Termination.Reason == spec.ReasonShimLost && r.ExitCode == nil
		shim := strings.HasPrefix(name, "shim.") && !unconcerned[name]
		switch {
		case shim && !decided[name] && !beside[name] && !lost:
			t.Errorf("a shim that died before its result gave %s", r.Encode(true))
		case (!shim || decided[name]) && !finished:
			t.Errorf("not the true verdict: %s", r.Encode(true))
		case !finished && !lost:
			t.Errorf("neither true nor lost: %s", r.Encode(true))
		}
	}
}

// checkLeft waits until nothing is left of an execution.
func checkLeft(t *testing.T, state, id string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var left []string
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err == unix.ECHILD {
				break
			}
			if pid == 0 {
				left = append(left, "a process")
				break
			}
		}
		dirs, err := filepath.Glob(state + "/executions/*")
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, dirs...)
		groups, err := exec.Command("find", "/sys/fs/cgroup", "-name", "*"+id+"*").Output()
		if err == nil && len(groups) > 0 {
			left = append(left, string(groups))
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(mounts, []byte(id)) {
			left = append(left, "a mount")
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
		time.Sleep(5 * time.Millisecond) // the end of strangers sends no event
	}
}
