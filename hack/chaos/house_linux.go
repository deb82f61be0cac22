package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/supervisor/client"
)

// Bounds of waits.
const (
	readyTime = 30 * time.Second
	stopTime  = 20 * time.Second
	pollPause = 10 * time.Millisecond
)

// house is a state directory with the capsuled that serves it.
type house struct {
	dir     string // all of it is in here
	state   layout.State
	address string
	bin     string
	family  *family

	mu     sync.Mutex
	args   []string // guarded by mu, as all that follows
	daemon *exec.Cmd
	ended  chan struct{} // closed when daemon has ended
	asked  bool          // its end was wanted
	starts int
	// crashed is told when the daemon ends and nobody wanted it.
	crashed func(string)
}

func newHouse(dir, bin string) *house {
	state := layout.State(filepath.Join(dir, "state"))
	return &house{dir: dir, state: state, address: state.Socket(), bin: bin, family: newFamily(),
		crashed: func(string) {},
		args:    []string{"--sweep-interval", "500ms", "--history-count", "0", "--history-bytes", "0", "--history-output-bytes", "0", "--memory-budget", "0", "--max-queued", "1000"}}
}

func (h *house) log() string     { return filepath.Join(h.dir, "capsuled.log") }
func (h *house) metrics() string { return filepath.Join(h.dir, "metrics.sock") }

// start starts the daemon and does not wait until it answers.
func (h *house) start(more ...string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	log, err := os.OpenFile(h.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(append([]string{"--metrics", "unix:" + h.metrics()}, h.args...), more...)
	cmd := exec.Command(filepath.Join(h.bin, "capsuled"), args...)
	// The pool of prepared sandboxes is empty again before anybody looks what is left.
	config := filepath.Join(h.dir, "capsuled.toml")
	if err := os.WriteFile(config, []byte("[pool]\nidle_seconds = 1\n"), 0o600); err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "CAPSULE_STATE="+string(h.state), "CAPSULE_ADDRESS="+h.address, "CAPSULE_CONFIG="+config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := h.family.begin(cmd); err != nil {
		return err
	}
	ended := make(chan struct{})
	h.daemon, h.ended, h.asked = cmd, ended, false
	h.starts++
	go func() {
		err := h.family.end(cmd)
		h.mu.Lock()
		wanted := h.asked
		h.mu.Unlock()
		if !wanted {
			h.crashed(fmt.Sprint("capsuled ended by itself: ", err, "\n", h.lastLines(15)))
		}
		close(ended)
	}()
	return nil
}

// signal sends a signal that ends the daemon, and waits for that.
func (h *house) signal(sig syscall.Signal) error {
	h.mu.Lock()
	h.asked = true
	cmd, ended := h.daemon, h.ended
	h.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(stopTime):
		return fmt.Errorf("capsuled does not end by %v", sig)
	}
}

func (h *house) kill() error { return h.signal(syscall.SIGKILL) }
func (h *house) stop() error { return h.signal(syscall.SIGTERM) }

// pid is that of the daemon.
func (h *house) pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.daemon.Process.Pid
}

// dead tells whether the daemon has ended.
func (h *house) dead() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// ready waits until the daemon answers.
func (h *house) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		c, err := client.Dial(ctx, h.address)
		if err == nil {
			return c.Close()
		}
		if h.dead() {
			return fmt.Errorf("capsuled has ended: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("capsuled does not answer: %w", err)
		case <-time.After(pollPause):
		}
	}
}

// restart is kill, start and ready.
func (h *house) restart(ctx context.Context, more ...string) error {
	if err := errors.Join(h.kill(), h.start(more...)); err != nil {
		return err
	}
	return h.ready(ctx)
}

// logSize is a mark for logSince.
func (h *house) logSize() int {
	info, err := os.Stat(h.log())
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// logSince is what the daemon logged after a mark.
func (h *house) logSince(mark int) []byte {
	data, err := os.ReadFile(h.log())
	if err != nil || len(data) < mark {
		return nil
	}
	return data[mark:]
}

// events counts the events of a type in the log.
func (h *house) events(kind string) int {
	return bytes.Count(h.logSince(0), []byte("msg="+kind+" "))
}

func (h *house) lastLines(n int) string {
	lines := strings.Split(strings.TrimSpace(string(h.logSince(0))), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// raze ends what is left of the house and removes it.
func (h *house) raze() error { return errors.Join(h.endAll(), os.RemoveAll(h.dir)) }

// endAll ends the daemon and every execution, and has the cgroups removed.
func (h *house) endAll() error {
	err := h.kill()
	for _, s := range h.shims() {
		s.kill()
	}
	for end := time.Now().Add(stopTime); len(h.shims()) > 0 && time.Now().Before(end); time.Sleep(pollPause) {
		h.family.orphans() // reaps them
	}
	if exists(h.state.Executions()) {
		sweep := exec.Command(filepath.Join(h.bin, "capsule-shim"), "sweep", string(h.state))
		sweep.Stderr = os.Stderr
		if startErr := h.family.begin(sweep); startErr == nil {
			err = errors.Join(err, h.family.end(sweep))
		}
	}
	h.family.orphans()
	return err
}

// space is where a file system of its own is mounted.
func (h *house) space() string { return filepath.Join(h.dir, "space") }
