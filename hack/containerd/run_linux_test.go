package containerd

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestPayloads runs containers to their ends, as their users see them.
func TestPayloads(t *testing.T) {
	d := begin(t)
	for i, p := range []struct {
		name     string
		flags    []string
		command  string
		out, err string // what is in there
		status   int
	}{
		{"nothing", nil, "true", "", "", 0},
		{"output", nil, "echo out; echo err >&2", "out\n", "err\n", 0},
		{"exit status", nil, "exit 7", "", "", 7},
		{"child killed", nil, "sh -c 'kill -TERM $$'; echo $?", "143\n", "", 0},
		{"large output", nil, "head -c 10000000 /dev/zero | tr '\\0' x", strings.Repeat("x", 1000000), "", 0},
		{"no command", nil, "nosuchcommand", "", "not found", 127},
		{"process 1", nil, "echo $$", "1\n", "", 0},
		{"environment", []string{"--env", "A=b c"}, `echo "$A"`, "b c\n", "", 0},
		{"directory", []string{"--cwd", "/tmp"}, "pwd", "/tmp\n", "", 0},
		{"host name", nil, "hostname", "", "", 0},
		{"writable root", nil, "echo x >/file && cat /file", "x\n", "", 0},
		{"read-only root", []string{"--read-only"}, "touch /file || echo refused", "refused\n", "", 0},
		{"bind", []string{"--mount", "type=bind,src=/usr,dst=/host,options=rbind:ro"}, "test -d /host/bin && ! touch /host/x && echo bound", "bound\n", "", 0},
		{"memory", []string{"--memory-limit", "33554432"}, "head -c 200m /dev/zero | tail >/dev/null", "", "", 137},
		{"no network", nil, "ls /sys/class/net", "lo\n", "", 0},
		{"host's network", []string{"--net-host"}, "ls /sys/class/net", "lo\n", "", 0},
		{"filter", []string{"--seccomp"}, "grep Seccomp: /proc/self/status", "Seccomp:\t2\n", "", 0},
		{"capabilities", []string{"--cap-drop", "CAP_CHOWN"}, "chown 1 /tmp || echo refused", "refused\n", "", 0},
		{"privileged", []string{"--privileged"}, "mount -t tmpfs tmpfs /tmp && echo mounted", "mounted\n", "", 0},
		{"user namespace", []string{"--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"},
			"grep -o '^ *0 *100000 *65536' /proc/self/uid_map | tr -d ' '; echo x >/dev/stdout", "010000065536\nx\n", "", 0},
		{"streams may be opened", nil, "echo again >/dev/stdout; echo oops >/dev/stderr", "again\n", "oops\n", 0},
		{"a child is left", nil, "sleep 1000 & echo left", "left\n", "", 0},
	} {
		call := d.heard
		if p.out+p.err == "" {
			call = d.run
		}
		r := call(fmt.Sprint("p", i), p.flags, "sh", "-c", p.command)
		if r.status != p.status || !strings.Contains(r.out, p.out) || !strings.Contains(r.err, p.err) {
			t.Errorf("%s: exit status %d, want %d; stdout %.200q, stderr %.300q", p.name, r.status, p.status, r.out, r.err)
		}
	}
	r := d.run("missing", nil, "/no/such/program")
	if r.status != 1 || !strings.Contains(r.err, "E3003") {
		t.Errorf("a command that does not exist: %+v", r)
	}
}

// TestRefused: what is not done is refused by name.
func TestRefused(t *testing.T) {
	d := begin(t)
	for _, c := range []struct {
		name, want string
		flags      []string
	}{
		{"log", "a program as a log is not supported", []string{"--log-uri", "binary:///bin/true"}},
		{"driver", "is for the systemd driver", []string{"--annotation", "x=y", "--cgroup", "a:b:c"}},
	} {
		r := d.run("r", c.flags, "true")
		if r.status == 0 || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: %+v", c.name, r)
		}
		d.ctr("containers", "delete", "r")
	}
	d.detached("c", nil, "sleep", "1000")
	if r := d.ctr("tasks", "checkpoint", "c"); r.status == 0 || !strings.Contains(r.err, "not supported by capsule") {
		t.Errorf("checkpoint: %+v", r)
	}
	d.kill("c")
}

// TestMany runs 50 containers at once.
func TestMany(t *testing.T) {
	d := begin(t)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if r := d.heard(fmt.Sprint("m", i), nil, "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)); r.status != i || r.out != fmt.Sprintln(i) {
				t.Errorf("container %d: %+v", i, r)
			}
		})
	}
	all.Wait()
}
