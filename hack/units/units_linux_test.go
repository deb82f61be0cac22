//go:build systemd

package units

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// patience bounds a wait. The machine is emulated.
const patience = 3 * time.Minute

// host is a host with the units installed.
type host struct {
	*testing.T
	ctl string
}

// install puts units and programs where an administrator would, but below /run.
func install(t *testing.T) *host {
	t.Helper()
	bin, err := filepath.Abs(os.Getenv("CAPSULE_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{"capsuled.service", "capsuled.socket"} {
		text, err := os.ReadFile("../../cmd/capsuled/systemd/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.ReplaceAll(string(text), "/usr/local/bin", bin)
		if unit == "capsuled.service" && changed == string(text) {
			t.Fatal("the unit does not name the programs where they are installed")
		}
		if err := os.WriteFile("/run/systemd/system/"+unit, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := &host{t, filepath.Join(bin, "capsulectl")}
	h.systemctl("daemon-reload")
	h.systemctl("start", "capsuled.socket", "capsuled.service")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("journalctl", "--no-pager", "-u", "capsuled").CombinedOutput()
			t.Logf("%s", out)
		}
		_ = exec.Command("systemctl", "stop", "capsuled.socket", "capsuled.service").Run() // they may be stopped
	})
	return h
}

func (h *host) output(name string, args ...string) string {
	h.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		h.Fatalf("%s %q: %v", name, args, err)
	}
	return strings.TrimSpace(string(out))
}

func (h *host) systemctl(args ...string) string {
	h.Helper()
	return h.output("systemctl", args...)
}

func (h *host) show(property string) string {
	h.Helper()
	return h.systemctl("show", "--value", "-p", property, "capsuled.service")
}

// mainPID is capsuled's, which is not this one.
func (h *host) mainPID(not int) int {
	h.Helper()
	pid := 0
	h.until("capsuled is active", func() bool {
		pid, _ = strconv.Atoi(h.show("MainPID")) // 0 is none
		return pid > 0 && pid != not && h.show("ActiveState") == "active"
	})
	return pid
}

func (h *host) until(what string, f func() bool) {
	h.Helper()
	for late := time.Now().Add(patience); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(late) {
			h.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// begin starts commands that end with their number once the file go is there.
func (h *host) begin(gate string, n int) (ids []string) {
	h.Helper()
	for i := range n {
		ids = append(ids, h.output(h.ctl, "run", "-d", "--timeout", "30m", "--readonly", gate, "--", "sh", "-c",
			`echo begun; while [ ! -e $0/go ]; do sleep 0.1; done; echo ended; exit $1`, gate, strconv.Itoa(i)))
	}
	h.until("the commands run", func() bool {
		for _, id := range ids {
			if h.output(h.ctl, "logs", id) != "begun" {
				return false
			}
		}
		return true
	})
	return ids
}

// end opens the gate and checks every verdict.
func (h *host) end(gate string, ids []string) {
	h.Helper()
	if err := os.WriteFile(filepath.Join(gate, "go"), nil, 0o644); err != nil {
		h.Fatal(err)
	}
	for i, id := range ids {
		cmd := exec.Command(h.ctl, "wait", "-o", "json", id)
		out, err := cmd.Output() // with the command's exit code
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			h.Fatal(err)
		}
		var r spec.Response
		if err := json.Unmarshal(out, &r); err != nil {
			h.Fatalf("wait: %v: %s", err, out)
		}
		if r.Status != spec.StatusSuccess || r.ExitCode == nil || *r.ExitCode != i || r.Stdout == nil || *r.Stdout != "begun\nended\n" {
			h.Errorf("%d: %s", i, r.Encode(true))
		}
	}
}

func (h *host) gate() string {
	dir := h.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		h.Fatal(err)
	}
	return dir
}

// TestExecutionsGoOn ends capsuled in every way that systemd knows while commands
// run: they go on, and their results arrive.
func TestExecutionsGoOn(t *testing.T) {
	h := install(t)
	for _, v := range []struct {
		name string
		do   func(pid int)
	}{
		{"restart", func(int) { h.systemctl("restart", "capsuled.service") }},
		{"killed", func(pid int) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}},
		{"stopped and woken by its socket", func(int) {
			h.systemctl("stop", "capsuled.service")
			h.output(h.ctl, "info") // connects
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			h := &host{t, h.ctl}
			gate := h.gate()
			pid := h.mainPID(0)
			ids := h.begin(gate, 3)
			v.do(pid)
			h.mainPID(pid)
			if running := h.output(h.ctl, "ps", "-q"); len(strings.Fields(running)) != len(ids) {
				t.Errorf("ps shows %q, want %q", running, ids)
			}
			h.end(gate, ids)
		})
	}
}

// TestReload: SIGHUP by systemctl reload leaves the process and what it runs.
func TestReload(t *testing.T) {
	h := install(t)
	gate := h.gate()
	pid := h.mainPID(0)
	ids := h.begin(gate, 1)
	h.systemctl("reload", "capsuled.service")
	if now := h.mainPID(0); now != pid {
		t.Errorf("the process is %d, it was %d", now, pid)
	}
	h.end(gate, ids)
}

// TestHang: a capsuled that does not answer is killed by the watchdog and started again.
func TestHang(t *testing.T) {
	h := install(t)
	gate := h.gate()
	pid := h.mainPID(0)
	ids := h.begin(gate, 1)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.mainPID(pid)
	h.end(gate, ids)
}

// TestDrained: after a drain the daemon stays down, and everything has ended.
func TestDrained(t *testing.T) {
	h := install(t)
	gate := h.gate()
	h.mainPID(0)
	ids := h.begin(gate, 2)
	h.systemctl("stop", "capsuled.socket")
	drain := exec.Command(filepath.Join(filepath.Dir(h.ctl), "capsuled"), "--drain")
	if err := drain.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(gate, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := drain.Wait(); err != nil {
		t.Errorf("capsuled --drain: %v", err)
	}
	h.until("capsuled stays down", func() bool { return h.show("ActiveState") == "inactive" })
	h.end(gate, ids) // without a daemon
}
