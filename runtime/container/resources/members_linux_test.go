package resources

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestSignal: each of many members gets it, and they are not listed anew for each.
func TestSignal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making groups needs root")
	}
	g, err := Make(Own+"/signal"+strconv.Itoa(os.Getpid()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(g.Kill(context.Background()), g.Remove(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	const count = 2*signalAtOnce + 2
	cmd := exec.Command("sh", "-ec", `read -r go; i=0; while [ $i -lt `+strconv.Itoa(count)+` ]; do (trap 'echo got; exit' USR1; echo up; while :; do sleep 1000 & wait; done) & i=$((i+1)); done; trap : USR1; wait; wait`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // it is killed with the group
	for _, dir := range g.directories() {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range count {
		if !lines.Scan() || lines.Text() != "up" {
			t.Fatal(lines.Text(), lines.Err())
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := reads(t)
	if err := g.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if n := reads(t) - before; n > count {
		t.Errorf("%d reads for %d processes", n, count)
	}
	for range count {
		if !lines.Scan() || lines.Text() != "got" {
			t.Fatal(lines.Text(), lines.Err())
		}
	}
}

// reads are the calls of read(2) of this thread.
func reads(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "syscr: ")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDisown: of a group that another stands in place of, nothing is killed or removed, and
// nobody enters it, nor runs outside of it.
func TestDisown(t *testing.T) {
	kept, replaced := t.TempDir(), t.TempDir()
	g := &Group{Path: "/x", Unified: kept, Dirs: map[string]string{"pids": replaced}, Made: []string{kept, replaced}}
	if err := g.identify(); err != nil {
		t.Fatal(err)
	}
	g.Disown()
	if len(g.directories()) != 2 || len(g.Made) != 2 {
		t.Fatalf("disowned what is its own: %+v", g)
	}
	g.Inodes[replaced]++
	g.Disown()
	if list := g.directories(); len(list) != 1 || list[0] != kept || len(g.Made) != 1 || g.Made[0] != kept {
		t.Errorf("left are %v and %v", list, g.Made)
	}
	if dir, _, err := g.Open(); !errors.Is(err, &fault.Fault{Code: fault.Cgroup}) {
		t.Errorf("entered: %v %v", dir, err)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	g.Disown()
	if g.Unified == "" {
		t.Error("what is gone is nobody else's")
	}
}
