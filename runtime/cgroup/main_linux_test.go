package cgroup

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestMain lets the test binary play the payloads, so that the tests need no
// program of the host but a shell.
func TestMain(m *testing.M) {
	if role := os.Getenv("CAPSULE_TEST_ROLE"); role != "" {
		payload(role)
		return
	}
	code := m.Run()
	if left := leftovers(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "groups left behind:", left)
		code = 1
	}
	os.Exit(code)
}

// leftovers are groups of this test process that still exist.
func leftovers() []string {
	h, err := Detect()
	if err != nil {
		return nil
	}
	var left []string
	for _, name := range h.Names() {
		if strings.HasPrefix(name, testPrefix()) {
			left = append(left, name)
		}
	}
	return left
}

func testPrefix() string { return "test-" + strconv.Itoa(os.Getpid()) + "-" }

func payload(role string) {
	switch role {
	case "hog":
		var all [][]byte
		for {
			chunk := make([]byte, 1<<20)
			for i := 0; i < len(chunk); i += 4096 {
				chunk[i] = 1
			}
			all = append(all, chunk)
			if len(all) > 512 {
				os.Exit(3)
			}
		}
	case "spin":
		// Of processor time, next to which the shell's is nothing however busy the machine.
		var u syscall.Rusage
		for u.Utime.Nano()+u.Stime.Nano() < int64(200*time.Millisecond) {
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				os.Exit(7)
			}
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "tree":
		plantTree()
	case "create":
		createOne()
	}
}

// plantTree leaves a session leader and a double-forked child behind which
// ignore SIGTERM, then ends.
func plantTree() {
	for _, attr := range []*syscall.SysProcAttr{{Setsid: true}, {Setpgid: true}} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "CAPSULE_TEST_ROLE=stubborn")
		cmd.SysProcAttr = attr
		out, err := cmd.StdoutPipe()
		if err != nil {
			os.Exit(4)
		}
		if err := cmd.Start(); err != nil {
			os.Exit(5)
		}
		if _, err := out.Read(make([]byte, 5)); err != nil {
			os.Exit(6)
		}
	}
	fmt.Println("planted")
}

// createOne does what a shim does in a cgroup where nothing is prepared.
func createOne() {
	// The end of stdin is the signal to begin.
	_, _ = io.Copy(io.Discard, os.Stdin)
	h, err := Detect()
	if err == nil {
		var g *Group
		limit := int64(5)
		g, err = h.Create(strconv.Itoa(os.Getpid()), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}, nil)
		if err == nil {
			fmt.Println(strings.Join(g.Paths(), " "))
			err = g.Remove(context.Background())
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// needHost skips where no group can be made at all, which only an
// unprivileged user without a delegated cgroup should see.
func needHost(t *testing.T, controllers ...string) *Host {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if h.Usable() {
		if err := h.Prepare(); err != nil {
			t.Fatal(err)
		}
	}
	skip := t.Skipf
	if os.Getenv("CAPSULE_TEST_STRICT") == "1" {
		skip = t.Fatalf
	}
	if !h.Usable() {
		skip("mode %s, no usable hierarchy: %v", h.Mode, h.Missing())
	}
	for _, name := range controllers {
		if c := h.Controller(name); !c.Usable {
			skip("%s", c.Reason)
		}
	}
	return h
}

// withoutUnified is the host as it would be without a v2 tree.
func withoutUnified(t *testing.T) *Host {
	t.Helper()
	h := needHost(t)
	if h.Mode != ModeHybrid && h.Mode != ModeV1 {
		t.Skip("no v1 hierarchies are mounted")
	}
	self, err := os.Open("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	h, err = detect(mountpoint, ModeV1, self)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newGroup(t *testing.T, h *Host, r *specs.LinuxResources) *Group {
	t.Helper()
	name := testPrefix() + strings.NewReplacer("/", ".", " ", "_", "#", ".").Replace(t.Name())
	g, err := h.Create(name, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if len(g.members) > 0 {
			_ = g.Kill()
		}
		if err := g.Remove(soon(t)); err != nil {
			t.Error(err)
		}
	})
	return g
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// start runs argv inside the group the way a launcher does: cloned into the v2
// directory, and as a single thread writing "0" to each tasks file.
func start(t *testing.T, g *Group, role string, argv ...string) *exec.Cmd {
	t.Helper()
	script := ""
	var extra []*os.File
	for i, fd := range g.TasksFDs() {
		dup, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(dup), "tasks")
		t.Cleanup(func() { file.Close() })
		extra = append(extra, file)
		script += fmt.Sprintf("echo 0 >&%d || exit 99; exec %d>&-; ", i+3, i+3)
	}
	if role != "" {
		argv = []string{"/proc/self/exe"}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		argv[0] = exe
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", script + `exec "$@"`, "sh"}, argv...)...)
	cmd.ExtraFiles = extra
	cmd.Env = append(os.Environ(), "CAPSULE_TEST_ROLE="+role, "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if g.DirFD() >= 0 {
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = g.DirFD()
	}
	return cmd
}

func ptr[T any](v T) *T { return &v }
