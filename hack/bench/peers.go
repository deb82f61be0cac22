package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/capsule-run/capsule/supervisor/bench"
)

// peerNote says what another sandbox is and what it does not do that capsule
// does by default.
type peerNote struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Lacks   string `json:"lacks"`
}

// peers are the other sandboxes. One that is not installed is listed all the same.
func (f *field) peers(ctx context.Context) []*bench.Way {
	program := f.program("true")
	ways := []*bench.Way{
		f.peer("bubblewrap", "namespaces", "no cgroup, limit or accounting; no seccomp filter but one that the caller compiles; the caller's own id only; no time-out, no verdict",
			[]string{"bwrap", "--version"}, bubblewrap(f.payload, program), nil),
		f.peer("firejail", "namespaces, seccomp", "no cgroup, limit or accounting; no user namespace (it is set-user-id); the host's root with parts hidden; no verdict",
			[]string{"firejail", "--version"}, []string{"firejail", "--quiet", "--noprofile", "--net=none", "--private-dev", "--seccomp", "--caps.drop=all", "--nonewprivs", "--", program}, nil),
		f.peer("nsjail", "namespaces, cgroup, rlimits", "a filter only when one is written for it; no accounting, no verdict but its log",
			[]string{"nsjail", "--version"}, nsjail(f.payload, program), nil),
		f.oci("crun", program), f.oci("runc", program),
	}
	return append(ways, f.goJudge(ctx))
}

// peer is one that is started for each execution.
func (f *field) peer(name, walls, lacks string, version, argv []string, on func(func())) *bench.Way {
	w := &bench.Way{Name: name, Walls: walls, Open: bench.Command{Argv: argv, Env: f.environment(), On: on}.Open}
	note := peerNote{Name: name, Version: "not installed", Lacks: lacks}
	if _, err := exec.LookPath(argv[0]); err != nil {
		w.Absent = "not installed"
	} else if note.Version = versionOf(version...); name == "nsjail" {
		note.Version = "version not told"
	}
	f.notes = append(f.notes, note)
	return w
}

// systemDirs calls link or bind for each directory of a system's root.
func systemDirs(link func(target, dir string), bind func(dir string)) {
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64"} {
		if target, err := os.Readlink(dir); err == nil {
			link(target, dir)
		} else if _, err := os.Stat(dir); err == nil {
			bind(dir)
		}
	}
}

// bubblewrap asks for what capsule always does and bubblewrap can: every
// namespace, system directories read-only, private /proc, /dev and /tmp.
func bubblewrap(payload, program string) []string {
	argv := []string{"bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--uid", "1000", "--gid", "1000"}
	systemDirs(func(target, dir string) { argv = append(argv, "--symlink", target, dir) }, func(dir string) { argv = append(argv, "--ro-bind", dir, dir) })
	return append(argv, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", payload, payload, program)
}

// nsjail is asked for the same, with capsule's default limits in a cgroup as root.
func nsjail(payload, program string) []string {
	argv := []string{"nsjail", "-Mo", "--quiet", "--time_limit", "30", "--user", "1000", "--group", "1000", "--hostname", "capsule", "--max_cpus", "0"}
	systemDirs(func(target, dir string) { argv = append(argv, "--symlink", target+":"+dir) }, func(dir string) { argv = append(argv, "--bindmount_ro", dir) })
	if os.Geteuid() == 0 {
		argv = append(argv, "--cgroup_mem_max", fmt.Sprint(256<<20), "--cgroup_pids_max", "100")
	}
	return append(argv, "--tmpfsmount", "/tmp", "--bindmount_ro", payload, "--", program)
}

// oci prepares a bundle as the runtime's own `spec` command writes it, with
// the limits that capsule has by default and the program as its root.
func (f *field) oci(name, program string) *bench.Way {
	root := filepath.Join(f.states, name+"-state")
	var on func(func())
	var absent error
	if name == "crun" {
		on, absent = withoutUnified()
	}
	w := f.peer(name, "namespaces, cgroup", "no seccomp filter in the bundle that its `spec` command writes; root inside is the host's, unless mapped; no time-out, output cap, accounting or verdict",
		[]string{name, "--version"}, []string{name}, on)
	// Containers that live at the same time have bundles and cgroups of their own.
	var clients atomic.Int64
	w.Open = func(ctx context.Context) (*bench.Client, error) {
		own := fmt.Sprintf("capsule-bench-%s-%d", name, clients.Add(1))
		bundle := filepath.Join(f.dir, own)
		if err := writeBundle(bundle, name, own, program); err != nil {
			return nil, err
		}
		return bench.Command{Argv: []string{name, "--root", root, "run", "--bundle", bundle, own}, Env: f.environment(), On: on}.Open(ctx)
	}
	if w.Absent == "" && absent != nil {
		w.Absent = absent.Error()
	}
	return w
}

// withoutUnified is for crun, which refuses a hybrid host whose v2 tree has
// controllers: there it is started in a mount namespace that does not show that
// tree. Nil: that is not needed.
func withoutUnified() (func(func()), error) {
	const unified = "/sys/fs/cgroup/unified"
	controllers, err := os.ReadFile(unified + "/cgroup.controllers")
	if err != nil || len(strings.TrimSpace(string(controllers))) == 0 {
		return nil, nil
	}
	thread, err := threadWithout(unified)
	if err != nil {
		return nil, fmt.Errorf("it refuses hybrid cgroups, and %s could not be hidden from it: %w", unified, err)
	}
	return func(start func()) {
		done := make(chan struct{})
		thread <- func() { start(); close(done) }
		<-done
	}, nil
}

// threadWithout gives a thread in a mount namespace of its own that lacks the
// mount at path. Functions sent to the channel run on it, and what they start
// inherits its namespace at no cost to the measure. It lives as long as the
// process. Clients that run at the same time take turns on it.
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

func writeBundle(bundle, name, group, program string) error {
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
		path = "/" + group
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
	return os.WriteFile(path, marshal(config), 0o644)
}
