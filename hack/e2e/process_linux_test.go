package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// bare makes a capsule whose policy allows commands without walls.
func bare(t *testing.T) *capsule {
	c := begin(t)
	c.ruled("[security]\nallow_process_backend = true\n")
	return c
}

// process is a request for the process backend.
func process(command []string, more ...object) object {
	r := object{"command": command, "isolation": object{"backend": "process"}}
	for _, m := range more {
		for k, v := range m {
			if iso, ok := v.(object); ok && k == "isolation" {
				for name, value := range iso {
					r["isolation"].(object)[name] = value
				}
				continue
			}
			r[k] = v
		}
	}
	return r
}

// TestProcessBackend wants the limits that the backend has, and nothing claimed that
// it has not.
func TestProcessBackend(t *testing.T) {
	c := bare(t)
	c.env = append(c.env, "OF_THE_CALLER=1")
	o := c.run(process(sh(`env | sed 's/=.*//' | sort | tr '\n' ' '; [ "$PWD" = "$HOME" ] && echo home >"$HOME/file" && ls -A; ulimit -n; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo session; cat; echo err >&2; exit 3`),
		object{"environment": object{"A": "b"}, "stdin": "fed\n", "resources": object{"rlimits": object{"nofile": 55}}}))
	o.is(t, exited(3))
	if o.text() != "A HOME LANG PATH PWD file\n55\nsession\nfed\n" || o.errors() != "err\n" {
		t.Errorf("stdout %q, stderr %q", o.text(), o.errors())
	}
	for name, state := range o.Enforcement.Walls {
		if (state == spec.Enforced) != (name == spec.WallRlimits) {
			t.Errorf("wall %s is %s", name, state)
		}
	}
	held := map[string]spec.State{"output": spec.Enforced, "timeout": spec.Enforced, "rlimits": spec.Enforced}
	for name, state := range o.Enforcement.Limits {
		if want := held[name]; state != spec.Absent && state != want {
			t.Errorf("limit %s is %s", name, state)
		}
	}
	if o.Enforcement.CgroupVersion != "none" || len(o.Enforcement.Walls) < 10 || len(o.Enforcement.Limits) < 5 {
		t.Errorf("%+v", o.Enforcement)
	}
	if len(o.Warnings) == 0 || !strings.Contains(o.Warnings[0], "no walls") {
		t.Errorf("warnings %q", o.Warnings)
	}
	m := o.Metrics
	if m.CPUTimeMS == nil || m.UserTimeMS == nil || m.MaxMemoryBytes == nil || *m.MaxMemoryBytes < 100<<10 || m.WallTimeMS == nil || m.MaxPids != nil || m.OOMKills != nil || m.IOBytesRead != nil {
		t.Errorf("%+v", m)
	}
	busy := c.run(process(python("import os\nx=0\nwhile os.times().user < 0.3: x += 1")))
	busy.is(t, exited(0))
	if *busy.Metrics.UserTimeMS < 250 || *busy.Metrics.CPUTimeMS < *busy.Metrics.UserTimeMS {
		t.Errorf("%+v", busy.Metrics)
	}
	c.run(process(sh("pwd"), object{"isolation": object{"working_directory": "/usr"}})).printed(t, "/usr\n")
}

// TestProcessBackendVerdicts: the same verdicts as in a sandbox.
func TestProcessBackendVerdicts(t *testing.T) {
	c := bare(t)
	c.run(process([]string{"no-such-program"})).is(t, want{spec.StatusError, spec.ReasonSetupFailed, "E3003", -1, -1, 127})
	c.run(process([]string{"/etc/passwd"})).is(t, want{spec.StatusError, spec.ReasonSetupFailed, "E3003", -1, -1, 126})
	c.run(process(sh("kill -SEGV $$"))).is(t, want{spec.StatusKilled, spec.ReasonSignaled, "E3002", -1, 11, 139})
	c.run(process(sh("while :; do echo 0123456789; done"), object{"resources": object{"max_output_bytes": 1000, "output_policy": "kill"}})).
		is(t, want{spec.StatusKilled, spec.ReasonOutputLimit, "E3006", -1, 9, 137})
	c.run(process([]string{"sleep", "600"}, object{"timeout_ms": 200})).is(t, want{spec.StatusTimeout, spec.ReasonTimeoutWall, "E3001", -1, 15, 124})
	c.run(process(sh("ulimit -c; while :; do :; done"), object{"resources": object{"rlimits": object{"cpu": 1}}})).
		is(t, want{spec.StatusKilled, spec.ReasonSignaled, "E3002", -1, 9, 137})
	c.run(process([]string{"true"}, object{"isolation": object{"working_directory": "/nowhere/at/all"}})).is(t, want{spec.StatusError, spec.ReasonRefused, "E1006", -1, -1, 125})
}

// TestProcessBackendLeavesNothing: what leaves the group and the session is ended
// with the command, and when the time is over.
func TestProcessBackendLeavesNothing(t *testing.T) {
	c := bare(t)
	dir := c.directory()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	alive := func(file string) bool {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return unix.Kill(pid, 0) == nil
	}
	// Two forks and a session of its own: a daemon.
	daemon := `setsid sh -c 'sh -c "echo \$\$ >$0.new; mv $0.new $0; exec sleep 600" "$0" & exec sleep 600' "$0" >/dev/null 2>&1 & while ! [ -e "$0" ]; do sleep 0.01; done; `
	one := filepath.Join(dir, "one")
	c.run(process(sh(daemon+"exit 5", one))).is(t, exited(5))
	if alive(one) {
		t.Error("a daemon outlives the execution")
	}
	two := filepath.Join(dir, "two")
	c.runInTime(patient(time.Second), process(sh("trap '' TERM; "+daemon+"echo ready; while :; do sleep 1; done", two), object{"grace_ms": 10}), said).
		is(t, want{spec.StatusTimeout, spec.ReasonTimeoutWall, "E3001", -1, 9, 124})
	if alive(two) {
		t.Error("a daemon outlives the deadline")
	}
}

// TestProcessBackendRefusals: what demands a wall or a limit that is not there is
// refused by field, all at once.
func TestProcessBackendRefusals(t *testing.T) {
	c := bare(t)
	for field, r := range map[string]struct {
		code string
		more object
	}{
		"/isolation/readonly_paths": {"E2008", object{"isolation": object{"readonly_paths": []string{"/usr"}}}},
		"/isolation/writable_paths": {"E2008", object{"isolation": object{"writable_paths": []string{"/tmp"}}}},
		"/isolation/bind_mounts":    {"E2008", object{"isolation": object{"bind_mounts": []object{{"source": "/usr", "destination": "/x"}}}}},
		"/isolation/rootfs":         {"E2008", object{"isolation": object{"rootfs": "/usr"}}},
		"/isolation/user":           {"E2008", object{"isolation": object{"user": "7:7"}}},
		"/isolation/hostname":       {"E2008", object{"isolation": object{"hostname": "box"}}},
		"/isolation/seccomp":        {"E2008", object{"isolation": object{"seccomp": "strict"}}},
		"/resources/memory_bytes":   {"E4001", object{"resources": object{"memory_bytes": 256 << 20}}},
		"/resources/max_pids":       {"E4001", object{"resources": object{"max_pids": 10}}},
		"/resources/cpu_quota":      {"E4001", object{"resources": object{"cpu_quota": 0.5}}},
		"/resources/cpu_shares":     {"E4001", object{"resources": object{"cpu_shares": 10}}},
		"/resources/cpu_time_ms":    {"E4001", object{"resources": object{"cpu_time_ms": 1000}}},
		"/resources/disk_bytes":     {"E4001", object{"resources": object{"disk_bytes": 1 << 20}}},
		"/resources/rlimits/nofile": {"E4001", object{"resources": object{"rlimits": object{"nofile": 1 << 30}}}},
	} {
		o := c.run(process([]string{"true"}, r.more))
		document, err := json.Marshal(o.Error)
		if err != nil {
			t.Fatal(err)
		}
		if o.Error == nil || o.Error.Code != r.code || !strings.Contains(string(document), field) || o.code != 125 {
			t.Errorf("%s: exit %d, %s", field, o.code, document)
		}
	}
	o := c.run(process([]string{"true"}, object{"resources": object{"memory_bytes": 1 << 30}, "isolation": object{"allow_degraded": []string{"memory"}}}))
	o.is(t, exited(0))
	if o.Enforcement.Limits["memory"] != spec.Absent {
		t.Errorf("%+v", o.Enforcement)
	}
}

// TestProcessBackendPolicy: nobody gets it who is not allowed to.
func TestProcessBackendPolicy(t *testing.T) {
	c := begin(t)
	if o := c.run(process([]string{"true"})); o.Error == nil || o.Error.Code != "E5004" || o.code != 125 {
		t.Errorf("without a configuration: %s", o.out)
	}
	for rules, code := range map[string]string{
		"[security]\nallow_unconfined = true\n":                                    "E5004",
		"[security]\nallow_process_backend = true\nblocked_commands = [\"env\"]\n": "E2008", // it could not be hidden from sh
		"[security]\nallow_process_backend = true\nallowed_commands = [\"cat\"]\n": "E5001",
	} {
		c := begin(t)
		c.ruled(rules)
		if o := c.run(process(sh("true"))); o.Error == nil || o.Error.Code != code || o.code != 125 {
			t.Errorf("%s: %s", rules, o.out)
		}
	}
}
