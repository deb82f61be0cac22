package stress

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// payload is this program inside a sandbox.
func payload(name string) int {
	if name != "orphans" {
		fmt.Fprintln(os.Stderr, "unknown payload", name)
		return 100
	}
	var count int
	if _, err := fmt.Sscan(os.Getenv("STRESS_COUNT"), &count); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 101
	}
	for made := 0; made < count; {
		for range min(30, count-made) {
			orphan()
			made++
		}
		for range 100000 {
			if left, _ := population(); left == 1 { // this one: process 1 is hidden
				break
			}
			time.Sleep(50 * time.Microsecond) // the reaper is another process, without an event
		}
	}
	left, zombies := population()
	fmt.Printf("%d processes, %d zombies\n", left, zombies)
	return 0
}

// orphan leaves a grandchild behind that ends at once. Only raw system calls
// stand between fork and exit: this program has more than one thread.
func orphan() {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	if pid == 0 {
		syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0) // parent and child go on to the exit
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	if _, err := unix.Wait4(int(pid), nil, 0, nil); err != nil {
		panic(err)
	}
}

// population counts the processes inside.
func population() (all, zombies int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is valid
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just been reaped
		}
		all++
		if _, after, _ := strings.Cut(string(text), ") "); strings.HasPrefix(after, "Z") {
			zombies++
		}
	}
	return all, zombies
}

// copySelf puts this program where a sandbox may bind it from.
func copySelf(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(scratch(), "payload")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOrphansAreReaped(t *testing.T) {
	count := scaled(10000)
	self := copySelf(t)
	args := []string{"--timeout", patient(50 * time.Second).String(), "--readonly", self, "-e", "STRESS_PAYLOAD=orphans", "-e", fmt.Sprint("STRESS_COUNT=", count)}
	if os.Geteuid() == 0 {
		args = append(args, "--max-pids", "60") // others may have no group to enforce it
	}
	o := run(t, append(args, "--", self)...)
	if !o.is(spec.ReasonExited, "") || *o.Stdout != "1 processes, 0 zombies\n" {
		t.Errorf("%d orphans: %v", count, o)
	}
	nothingLeft(t)
}

func TestTimeouts(t *testing.T) {
	for name, script := range map[string]string{
		"stopped by itself": "kill -STOP $$; sleep 1000",
		"stopped child":     "sleep 1000 & kill -STOP $!; wait",
		"deaf tree": `trap '' TERM HUP INT
i=0; while [ $i -lt 50 ]; do ( ( setsid sleep 1000 & ) ); i=$((i+1)); done; echo ready; sleep 1000; sleep 1000`,
		"stopped deaf tree": `trap '' TERM
i=0; while [ $i -lt 20 ]; do ( ( sh -c 'kill -STOP $$; sleep 1000' & ) ); i=$((i+1)); done; echo ready; kill -STOP $$; sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			var o outcome
			// A longer time-out when the script had not come so far: how fast it is, is the machine's affair.
			for timeout := patient(1500 * time.Millisecond); timeout < patient(15*time.Second); timeout *= 2 {
				o = request(t, object{"command": []string{"sh", "-c", script}, "timeout_ms": timeout.Milliseconds(), "grace_ms": 100})
				if o.Response == nil || *o.Stdout != "" || !strings.Contains(script, "ready") {
					break
				}
			}
			if !o.is(spec.ReasonTimeoutWall, "E3001") || o.Status != spec.StatusTimeout {
				t.Errorf("%v", o)
			} else if strings.Contains(script, "ready") && *o.Stdout != "ready\n" {
				t.Errorf("output %q", *o.Stdout)
			}
			nothingLeft(t)
		})
	}
}

// Stopped from outside, with its whole sandbox but for process 1.
func TestStoppedFromOutside(t *testing.T) {
	cmd := command(t, "--output", "json", "--timeout", "1500", "--", "sleep", "1000")
	done := make(chan outcome)
	go func() { done <- finish(t, cmd) }()
	stopped := false
	for end := time.Now().Add(patient(10 * time.Second)); !stopped && time.Now().Before(end); pollPause() {
		stopped = stopSleep(os.Getpid(), 4)
	}
	if o := <-done; !stopped || !o.is(spec.ReasonTimeoutWall, "E3001") {
		t.Errorf("stopped %v: %v", stopped, o)
	}
	nothingLeft(t)
}

// stopSleep looks for the sleep below a process and stops it.
func stopSleep(pid, depth int) bool {
	if depth == 0 {
		return false
	}
	for _, child := range children(pid) {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child)) // it may have ended
		if string(name) == "sleep\n" {
			return unix.Kill(child, unix.SIGSTOP) == nil
		}
		if stopSleep(child, depth-1) {
			return true
		}
	}
	return false
}

func TestLargeArguments(t *testing.T) {
	long := strings.Repeat("x", 131072)
	many := make([]string, 40)
	environment := map[string]string{}
	for i := range many {
		many[i] = long[:131000]
		environment[fmt.Sprint("V", i)] = long[:131000]
	}
	for name, req := range map[string]object{
		"one argument too long": {"command": []string{"true", long}},
		"all too long":          {"command": append([]string{"true"}, many...)},
		"environment too long":  {"command": []string{"true"}, "environment": environment},
	} {
		if o := request(t, req); o.Response == nil || o.Error == nil || o.Error.Code != "E1003" {
			t.Errorf("%s: %v", name, o)
		}
	}
	if o := request(t, object{"command": append([]string{"true"}, many[:10]...)}); !o.is(spec.ReasonExited, "") {
		t.Errorf("1.3 MB of arguments: %v", o)
	}
	nothingLeft(t)
}

func TestSmallestMemory(t *testing.T) {
	needRoot(t, "a memory limit")
	for range scaled(10) {
		if o := run(t, "--memory", "1MiB", "--", "true"); !o.is(spec.ReasonExited, "") {
			t.Errorf("%v", o)
		}
	}
	nothingLeft(t)
}

func TestManyBinds(t *testing.T) {
	var binds []object
	for i := range 200 {
		dir := filepath.Join(scratch(), "binds", fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/file", []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		binds = append(binds, object{"source": dir, "destination": fmt.Sprint("/b/", i)})
	}
	o := request(t, object{"command": []string{"sh", "-c", "cat /b/*/file | wc -c"}, "isolation": object{"bind_mounts": binds}})
	if !o.is(spec.ReasonExited, "") || strings.TrimSpace(*o.Stdout) != "200" {
		t.Errorf("%v", o)
	}
	nothingLeft(t)
}

// A limit that was asked for is enforced or refused, also where there is no
// control group to enforce it.
func TestCPUTimeIsEnforcedOrRefused(t *testing.T) {
	o := request(t, object{"command": []string{"sh", "-c", "while :; do :; done"}, "timeout_ms": 20000, "resources": object{"cpu_time_ms": 200}})
	if !o.is(spec.ReasonTimeoutCPU, "E4005") && !o.is(spec.ReasonRefused, "E4001") {
		t.Errorf("%v", o)
	}
	nothingLeft(t)
}
