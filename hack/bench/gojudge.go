package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/supervisor/bench"
)

// goJudge is a daemon that keeps containers and runs one command after another
// in each. It is asked over HTTP, the interface that it has by default.
func (f *field) goJudge(ctx context.Context) *bench.Way {
	const lacks = "a container is used again by the next command; no seccomp filter by default; /proc, /dev and id maps are plainer; limits are watched by polling"
	w := &bench.Way{Name: "go-judge", Walls: "namespaces (kept), cgroup, rlimits, verdict"}
	note := peerNote{Name: w.Name, Version: "not installed", Lacks: lacks}
	defer func() { f.notes = append(f.notes, note) }()
	program, err := exec.LookPath("go-judge")
	if err != nil {
		w.Absent = "not installed"
		return w
	}
	if note.Version = os.Getenv("GO_JUDGE_VERSION"); note.Version == "" {
		note.Version = versionOf(program, "-version")
	}
	address, pid, err := f.startGoJudge(program)
	if err != nil {
		w.Absent = err.Error()
		return w
	}
	w.Daemon = pid
	type object = map[string]any
	body := marshal(object{"cmd": []object{{
		"args": []string{"/payload/true"}, "env": []string{"PATH=/usr/bin:/bin"},
		"files":    []object{{"content": ""}, {"name": "stdout", "max": 1 << 20}, {"name": "stderr", "max": 1 << 20}},
		"cpuLimit": 30 * time.Second, "clockLimit": 30 * time.Second, "memoryLimit": 256 << 20, "procLimit": 100,
	}}})
	w.Open = func(context.Context) (*bench.Client, error) {
		c := &http.Client{Transport: &http.Transport{}}
		once := func(ctx context.Context) (time.Duration, error) {
			start := time.Now()
			err := judge(ctx, c, address, body)
			return time.Since(start), err
		}
		return &bench.Client{Once: once, Close: func() error { c.CloseIdleConnections(); return nil }}, nil
	}
	return w
}

// judge runs the command once.
func judge(ctx context.Context, c *http.Client, address string, body []byte) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/run", bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	a, err := c.Do(q)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(a.Body)
	if err = errors.Join(err, a.Body.Close()); err != nil {
		return err
	}
	var results []struct{ Status string }
	if err := json.Unmarshal(text, &results); err != nil || len(results) != 1 || results[0].Status != "Accepted" {
		return fmt.Errorf("go-judge: %s", bench.FirstLine(text))
	}
	return nil
}

// startGoJudge starts the daemon with the directories that capsule shows, and
// returns its address.
func (f *field) startGoJudge(program string) (address string, pid int, err error) {
	var mounts []map[string]any
	bind := func(source, target string) {
		mounts = append(mounts, map[string]any{"type": "bind", "source": source, "target": target, "readonly": true})
	}
	systemDirs(func(_, dir string) { bind(dir, dir) }, func(dir string) { bind(dir, dir) })
	bind(f.payload, "/payload")
	bind("/dev/null", "/dev/null")
	for _, dir := range []string{"/w", "/tmp"} {
		mounts = append(mounts, map[string]any{"type": "tmpfs", "target": dir, "data": "size=64m,nr_inodes=4k"})
	}
	file := filepath.Join(f.dir, "go-judge.yaml")
	// JSON is YAML.
	text := marshal(map[string]any{"mount": mounts, "proc": true, "workDir": "/w", "hostName": "capsule", "uid": 1000, "gid": 1000})
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return "", 0, err
	}
	// A free port: somebody may take it in between, which start-up then tells.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", 0, err
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", 0, err
	}
	const group = "capsule-bench-go-judge"
	cmd := exec.Command(program, "-http-addr", address, "-mount-conf", file, "-cgroup-prefix", group, "-parallelism", "8", "-pre-fork", "8", "-release", "-silent")
	cmd.Dir = f.dir
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	f.undo = append(f.undo, func() error {
		err := cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // ended by our signal
		return errors.Join(err, removeGroups(group))
	})
	for range 500 {
		if c, err := net.Dial("tcp", address); err == nil {
			return address, cmd.Process.Pid, c.Close()
		}
		time.Sleep(10 * time.Millisecond) // until it serves
	}
	return "", 0, errors.New("it does not answer")
}

// removeGroups takes away the cgroups that go-judge leaves behind, as soon as
// the processes in them have ended.
func removeGroups(name string) error {
	var err error
	for range 500 {
		var dirs []string
		err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.Contains(path+"/", "/"+name+"/") {
				dirs = append(dirs, path)
			}
			return nil // a group of somebody else may end meanwhile
		})
		for _, dir := range slices.Backward(dirs) {
			err = errors.Join(err, syscall.Rmdir(dir))
		}
		if err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // until the kernel has let go of them
	}
	return err
}
