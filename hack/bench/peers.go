package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// peer is one way to run the program.
type peer struct {
	Name string
	// Walls says in a few words what this peer puts around the program.
	Walls string
	Argv  []string
	// Absent is why the peer was not measured; empty when it was.
	Absent string

	env      []string
	stdin    *string       // a file
	out      string        // a file that takes stdout and stderr
	thread   chan<- func() // where it has to be started, nil: anywhere
	response bool          // what it prints is an ExecutionResponse
	samples  []time.Duration
	phases   map[string][]int64 // microseconds
}

// nothing is the program that is run: static, so that no peer pays for a
// dynamic linker or needs libraries.
const nothing = "int main(void) { return 0; }\n"

// prepare builds the program and the bundles below work and lists the peers.
func prepare(work, bin string) ([]*peer, error) {
	payload := filepath.Join(work, "payload")
	program := filepath.Join(payload, "true")
	if err := os.Mkdir(payload, 0o755); err != nil {
		return nil, err
	}
	source := filepath.Join(work, "true.c")
	if err := os.WriteFile(source, []byte(nothing), 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("gcc", "-O2", "-static", "-o", program, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gcc: %w: %s", err, out)
	}
	request := filepath.Join(work, "request.json")
	document, err := json.Marshal(map[string]any{
		"command":   []string{program},
		"isolation": map[string]any{"readonly_paths": []string{payload}},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(request, document, 0o644); err != nil {
		return nil, err
	}

	capsulectl := filepath.Join(bin, "capsulectl")
	peers := []*peer{
		{Name: "fork+exec", Walls: "none", Argv: []string{program}},
		{Name: "bubblewrap", Walls: "namespaces", Argv: bubblewrap(payload, program)},
		{Name: "capsule", Walls: "namespaces, cgroup, seccomp, verdict", Argv: []string{capsulectl, "run", "--embedded", "--readonly", payload, "--", program}},
		{Name: "capsule --json", Walls: "the same, as a JSON document", Argv: []string{capsulectl, "run", "--embedded", "--json"}, stdin: &request, response: true},
		crun(work, program),
		oci(work, "runc", program),
	}
	for _, p := range peers {
		p.out = filepath.Join(work, "out")
		p.phases = map[string][]int64{}
		p.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + work, "XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR"), "CAPSULE_STATE=" + filepath.Join(work, "state")}
		if p.Absent != "" {
			continue
		}
		if _, err := exec.LookPath(p.Argv[0]); err != nil {
			p.Absent = "not installed"
		}
	}
	return peers, nil
}

// bubblewrap asks for what capsule always does and bubblewrap can: every
// namespace, system directories read-only, private /proc, /dev and /tmp.
func bubblewrap(payload, program string) []string {
	argv := []string{"bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--uid", "1000", "--gid", "1000"}
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64"} {
		if target, err := os.Readlink(dir); err == nil {
			argv = append(argv, "--symlink", target, dir)
		} else if _, err := os.Stat(dir); err == nil {
			argv = append(argv, "--ro-bind", dir, dir)
		}
	}
	return append(argv, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", payload, payload, program)
}

// crun refuses a hybrid host whose v2 tree has controllers, so there it is
// started in a mount namespace that does not show that tree.
func crun(work, program string) *peer {
	p := oci(work, "crun", program)
	const unified = "/sys/fs/cgroup/unified"
	controllers, err := os.ReadFile(unified + "/cgroup.controllers")
	if p.Absent != "" || err != nil || len(strings.TrimSpace(string(controllers))) == 0 {
		return p
	}
	thread, err := threadWithout(unified)
	if err != nil {
		p.Absent = fmt.Sprintf("it refuses hybrid cgroups, and %s could not be hidden from it: %v", unified, err)
		return p
	}
	p.thread = thread
	return p
}

// threadWithout gives a thread in a mount namespace of its own that lacks the
// mount at path. Functions sent to the channel run on it, and what they start
// inherits its namespace at no cost to the measure. It lives as long as the
// process.
func threadWithout(path string) (chan<- func(), error) {
	work, ready := make(chan func()), make(chan error)
	go func() {
		// Never unlocked: the thread cannot serve anything else again.
		runtime.LockOSThread()
		err := syscall.Unshare(syscall.CLONE_NEWNS | syscall.CLONE_FS)
		if err == nil {
			err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		}
		if err == nil {
			err = syscall.Unmount(path, 0)
		}
		ready <- err
		if err != nil {
			return
		}
		for f := range work {
			f()
		}
	}()
	return work, <-ready
}

// oci prepares a bundle as the runtime's own `spec` command writes it, with
// the limits that capsule has by default and the program as its root.
func oci(work, name, program string) *peer {
	bundle := filepath.Join(work, name)
	root := filepath.Join(work, name+"-state")
	p := &peer{
		Name: name, Walls: "namespaces, cgroup",
		Argv: []string{name, "--root", root, "run", "--bundle", bundle, "capsule-bench-" + name},
	}
	if _, err := exec.LookPath(name); err != nil {
		p.Absent = "not installed"
		return p
	}
	if err := writeBundle(bundle, name, program); err != nil {
		p.Absent = err.Error()
	}
	return p
}

func writeBundle(bundle, name, program string) error {
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(rootfs, "true"), text, 0o755); err != nil {
		return err
	}
	spec := exec.Command(name, "spec")
	if os.Geteuid() != 0 {
		spec.Args = append(spec.Args, "--rootless")
	}
	spec.Dir = bundle
	if out, err := spec.CombinedOutput(); err != nil {
		return fmt.Errorf("%s spec: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	var path string
	if os.Geteuid() == 0 {
		path = "/capsule-bench-" + name
	}
	return amend(filepath.Join(bundle, "config.json"), path)
}

// amend sets the command, takes away the terminal and adds the limits, unless
// cgroup is empty.
func amend(path, cgroup string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	process, ok1 := config["process"].(map[string]any)
	linux, ok2 := config["linux"].(map[string]any)
	if !ok1 || !ok2 {
		return errors.New("the generated config.json has no process or linux object")
	}
	process["terminal"] = false
	process["args"] = []string{"/true"}
	if cgroup != "" {
		linux["cgroupsPath"] = cgroup
		resources, _ := linux["resources"].(map[string]any)
		if resources == nil {
			resources = map[string]any{}
		}
		resources["memory"] = map[string]any{"limit": 256 << 20}
		resources["pids"] = map[string]any{"limit": 100}
		resources["cpu"] = map[string]any{"shares": 1024}
		linux["resources"] = resources
	}
	text, err = json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
