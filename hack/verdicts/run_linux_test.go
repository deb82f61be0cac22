package verdicts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// object is a JSON object under construction.
type object map[string]any

// run sends a request through capsulectl and reads the response.
func run(t *testing.T, id string, request object) *spec.Response {
	t.Helper()
	return runUnder(t, "", id, request)
}

// runUnder is run under a configuration; empty: that of the host.
func runUnder(t *testing.T, configuration, id string, request object) *spec.Response {
	t.Helper()
	document, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(slow())*2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, programs()+"/capsulectl", "run", "--embedded", "--json", "--execution-id", id)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CAPSULE_STATE=" + stateDir()}
	if configuration != "" {
		path := filepath.Join(scratch(), id+".toml")
		if err := os.WriteFile(path, []byte(configuration), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "CAPSULE_CONFIG="+path)
	}
	cmd.Stdin = bytes.NewReader(document)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	r, err := spec.DecodeResponse(stdout.Bytes())
	if err != nil {
		t.Fatalf("no response: %v\n%.500s\n%.2000s", err, stdout.String(), stderr.String())
	}
	return r
}

// newID is a UUID by which leftovers of this process are found.
func newID(n int) string { return fmt.Sprintf("%s%012x", idPrefix(), n) }

func idPrefix() string { return fmt.Sprintf("%08x-0000-4000-8000-", os.Getpid()) }

// enforced asks the host what it can do. A limit that is a default is never
// refused, so the answer comes from enforcement.
func enforced(t *testing.T, n int) map[string]bool {
	t.Helper()
	r := run(t, newID(0xf0000+n), object{"command": []string{"true"}, "timeout_ms": ms(30 * time.Second),
		"resources": object{"io": object{"read_bytes_per_second": 1 << 30}}, "isolation": object{"allow_degraded": []string{spec.LimitIO}}})
	if r.Enforcement == nil || r.Status != spec.StatusSuccess {
		t.Fatalf("the plainest execution: %s", r.Encode(true))
	}
	have := map[string]bool{}
	for name, state := range r.Enforcement.Limits {
		have[name] = state != spec.Absent
		if name == spec.LimitIO { // a bound that some of the traffic escapes is refused, too
			have[name] = state == spec.Enforced
		}
	}
	have[ioWrites] = bounded(t, n, object{"write_bytes_per_second": 1 << 30}, nil)
	have[spec.LimitCPUQuota], have[spec.LimitCPUTime] = have[spec.LimitCPUShares], have[spec.LimitMemory]
	return have
}

// ioWrites is the part of the limit io that bounds writes: reads of the system's
// own directories may escape where writes do not.
const ioWrites = "io, writes"

// bounded tells whether all traffic of a sandbox can be bounded.
func bounded(t *testing.T, n int, io, isolation object) bool {
	t.Helper()
	request := object{"command": []string{"/opt/payload", "act", "nothing"}, "timeout_ms": ms(30 * time.Second), "resources": object{"io": io},
		"isolation": object{"allow_degraded": []string{spec.LimitIO}}}
	if isolation == nil {
		request["command"] = []string{"true"}
	}
	for k, v := range isolation {
		request["isolation"].(object)[k] = v
	}
	r := run(t, newID(0xf1000+n), request)
	if r.Enforcement == nil || r.Status != spec.StatusSuccess {
		t.Fatalf("a bound that may be missing: %s", r.Encode(true))
	}
	return r.Enforcement.Limits[spec.LimitIO] == spec.Enforced
}

// checkNothingLeft waits until no process, directory, mount or control group of
// this process's executions exists.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Duration(slow()) * 10 * time.Second)
	for {
		list := leftovers()
		if len(list) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind:\n%s", strings.Join(list, "\n"))
			return
		}
		time.Sleep(5 * time.Millisecond) // the end of strangers sends no event
	}
}

func leftovers() []string {
	var list []string
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.ECHILD {
			break
		}
		if err == nil && pid == 0 {
			list = append(list, "a process")
			break
		}
	}
	entries, err := os.ReadDir(filepath.Join(stateDir(), "executions"))
	if err != nil && !os.IsNotExist(err) {
		list = append(list, err.Error())
	}
	for _, e := range entries {
		list = append(list, "directory "+e.Name())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(stateDir())) {
		list = append(list, "a mount")
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), idPrefix()) {
			list = append(list, "group "+path)
		}
		return nil // groups of others come and go
	})
	if err != nil {
		list = append(list, err.Error())
	}
	return list
}

func resolved(t *testing.T, path string) string {
	t.Helper()
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return real
}
