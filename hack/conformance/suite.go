package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The suite. It has no release after v0.9.0, so a commit is named: the last before its
// comparison of process limits, with the specification's 1.3, became one of two pointers
// that are never equal. Its programs are the same 58.
const (
	module  = "github.com/opencontainers/runtime-tools"
	version = "v0.9.1-0.20250523060157-0ea5ed0382a2"
)

// limit bounds one program; the longest takes 20 s.
const limit = 2 * time.Minute

// build makes the programs in dir/run once and returns that directory.
func build(dir string) (string, error) {
	out := filepath.Join(dir, "run")
	if _, err := os.Stat(filepath.Join(out, "complete")); err == nil {
		return out, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "mod", "download", "-json", module+"@"+version)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "GOFLAGS=-mod=mod"), os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("download %s@%s: %w", module, version, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(text, &m); err != nil {
		return "", err
	}
	// The module cache is read-only, and its vendor directory is incomplete.
	source := filepath.Join(dir, "source")
	if err := errors.Join(os.RemoveAll(source), os.RemoveAll(out)); err != nil {
		return "", err
	}
	if err := os.CopyFS(source, os.DirFS(m.Dir)); err != nil {
		return "", err
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(source, "vendor")), os.MkdirAll(out, 0o755)); err != nil {
		return "", err
	}
	cmd = exec.Command("go", "build", "-mod=mod", "-o", out+"/", "./validation/...", "./cmd/runtimetest")
	cmd.Dir, cmd.Env, cmd.Stderr = source, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="), os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the suite: %w", err)
	}
	roots, err := filepath.Glob(filepath.Join(source, "rootfs-*.tar.gz"))
	if err != nil || len(roots) == 0 {
		return "", errors.Join(errors.New("the suite has no root file systems"), err)
	}
	for _, root := range roots {
		if err := os.Rename(root, filepath.Join(out, filepath.Base(root))); err != nil {
			return "", err
		}
	}
	return out, os.WriteFile(filepath.Join(out, "complete"), nil, 0o644)
}

// programs lists those of the suite, by name.
func programs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "runtimetest", name == "complete", strings.HasSuffix(name, ".gz"):
		default:
			names = append(names, name)
		}
	}
	return names, nil
}

// host is where the programs run.
type host struct {
	dir string // of the programs
	oci string
}

// program runs one program against capsule-oci with a state directory of its own, and
// tells what it says.
func (h *host) program(name string) (result, why string, err error) {
	state, err := os.MkdirTemp("", "capsule-conformance-")
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	runtime := filepath.Join(state, "runtime")
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' --root '%s/root' \"$@\"\n", h.oci, state)
	if err := os.WriteFile(runtime, []byte(script), 0o755); err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	argv, taken, err := h.command(name)
	if err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = h.dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "RUNTIME="+runtime, "TMPDIR="+state) // some leave their bundle
	// Go makes the mounts of the new namespace private: some programs leave theirs behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	failed := cmd.Run()
	if err := errors.Join(clean(runtime), returned(taken, state)); err != nil {
		return "", "", err
	}
	result, why = judge(failed, stdout.String(), stderr.String())
	return result, why, nil
}

// command is a program's, and the controllers that it takes from the kernel meanwhile.
func (h *host) command(name string) (argv, taken []string, err error) {
	program := filepath.Join(h.dir, name)
	if wanted(name) == nil || !v1(name) {
		return []string{program}, nil, nil
	}
	text, err := hierarchies()
	if err != nil {
		return nil, nil, err
	}
	if taken, _ = unmounted(wanted(name), text); len(taken) == 0 {
		return []string{program}, nil, nil
	}
	return []string{"sh", "-c", mounting, "mounting.sh", strings.Join(taken, " "), program}, taken, nil
}

// clean deletes the containers that a program left.
func clean(runtime string) error {
	ids, err := exec.Command(runtime, "list", "--quiet").Output()
	for _, id := range strings.Fields(string(ids)) {
		if out, bad := exec.Command(runtime, "delete", "--force", id).CombinedOutput(); bad != nil {
			err = errors.Join(err, fmt.Errorf("delete %s: %w: %s", id, bad, out))
		}
	}
	return err
}
