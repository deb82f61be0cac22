package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/supervisor/client"
)

// daemon is the capsuled under load.
type daemon struct {
	cmd     *exec.Cmd
	dir     string
	address string
	metrics http.Client
}

func startDaemon(ctx context.Context, bin string) (*daemon, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	// What the daemon leaves becomes our child, and is seen.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "capsule-soak-")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, address: filepath.Join(dir, "capsuled.sock")}
	socket := filepath.Join(dir, "metrics.sock")
	d.metrics.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	log, err := os.Create(filepath.Join(dir, "capsuled.log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer log.Close() // the daemon has its own copy
	d.cmd = exec.Command(filepath.Join(bin, "capsuled"), "--state", filepath.Join(dir, "state"), "--address", d.address,
		"--metrics", "unix:"+socket, "--log-level", "warn", "--history-count", "1000", "--max-queued", "1000", "--sweep-interval", "1s")
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CAPSULE_STATE=" + filepath.Join(dir, "state")}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for range 500 {
		if c, err := client.Dial(ctx, d.address); err == nil {
			return d, c.Close()
		}
		time.Sleep(10 * time.Millisecond) // until it serves
	}
	return nil, errors.Join(errors.New("the daemon does not answer"), d.stop())
}

// stop ends the daemon and tells what it left.
func (d *daemon) stop() error {
	err := errors.Join(d.cmd.Process.Signal(unix.SIGTERM), d.cmd.Wait())
	left, globErr := filepath.Glob(filepath.Join(d.dir, "state/executions/*"))
	err = errors.Join(err, globErr)
	if len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %v", left))
	}
	for {
		pid, waitErr := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if waitErr == unix.ECHILD {
			break
		}
		if pid == 0 {
			err = errors.Join(err, errors.New("a process is left behind"))
			break
		}
	}
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(d.dir, "capsuled.log"))
		fmt.Fprintf(os.Stderr, "%s", log[max(0, len(log)-4000):])
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}

// held is what a daemon holds.
type held struct {
	memory, heap                     float64 // MiB
	descriptors, goroutines, threads int
}

func (d *daemon) held(ctx context.Context) (held, error) {
	var h held
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		return h, err
	}
	h.descriptors = len(fds)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://capsuled/metrics", nil)
	if err != nil {
		return h, err
	}
	answer, err := d.metrics.Do(req)
	if err != nil {
		return h, err
	}
	defer answer.Body.Close() // read to its end
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.ParseFloat(value, 64) // only of lines that are looked at
		switch name {
		case "go_goroutines":
			h.goroutines = int(n)
		case "go_threads":
			h.threads = int(n)
		case "process_resident_memory_bytes":
			h.memory = n / (1 << 20)
		case "go_memstats_heap_inuse_bytes":
			h.heap = n / (1 << 20)
		}
	}
	if h.goroutines == 0 || h.memory == 0 {
		return h, errors.New("the metrics lack goroutines or memory")
	}
	return h, nil
}

// Tolerances: what a daemon may hold more than after its warm-up.
const (
	moreDescriptors = 3
	moreGoroutines  = 5
	moreMemory      = 48 // MiB; the history's pages are mapped, and count
)

// against compares with what was held after the warm-up.
func (h held) against(first held) error {
	var errs []error
	if h.descriptors > first.descriptors+moreDescriptors {
		errs = append(errs, fmt.Errorf("%d descriptors, %d after the warm-up", h.descriptors, first.descriptors))
	}
	if h.goroutines > first.goroutines+moreGoroutines {
		errs = append(errs, fmt.Errorf("%d goroutines, %d after the warm-up", h.goroutines, first.goroutines))
	}
	if h.memory > first.memory+moreMemory {
		errs = append(errs, fmt.Errorf("%.1f MiB, %.1f after the warm-up", h.memory, first.memory))
	}
	return errors.Join(errs...)
}

// settled waits until the daemon holds no more than after its warm-up, or for
// a while, and returns what it holds. A zero first waits until it is idle.
func (d *daemon) settled(ctx context.Context, first held) (h held, err error) {
	for range 100 {
		if h, err = d.held(ctx); err != nil {
			return h, err
		}
		// Prepared sandboxes have no record.
		dirs, err := filepath.Glob(filepath.Join(d.dir, "state/executions/*/execution.json"))
		if err != nil {
			return h, err
		}
		if len(dirs) == 0 && (first == held{} || h.against(first) == nil) {
			return h, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return h, ctx.Err()
		}
	}
	return h, nil
}
