package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/supervisor/client"
)

// daemon is a capsuled of our own: its socket and state are nobody else's.
type daemon struct {
	cmd     *exec.Cmd
	dir     string
	address string
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// startDaemon starts a capsuled with the given configuration, until the end.
func (f *field) startDaemon(ctx context.Context, name, configuration string) (*daemon, error) {
	dir := filepath.Join(f.states, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := f.startDaemonAt(ctx, dir, configuration)
	if err == nil {
		f.undo = append(f.undo, d.stop)
	}
	return d, err
}

// startDaemonAt starts a capsuled in a directory that may have its state already.
// The caller stops it.
func (f *field) startDaemonAt(ctx context.Context, dir, configuration string) (*daemon, error) {
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the daemon has its own copy
	d := &daemon{dir: dir, address: filepath.Join(dir, "socket")}
	// The memory that sandboxes may have together is not what is measured.
	d.cmd = exec.Command(filepath.Join(f.bin, "capsuled"), "--config", file, "--state", filepath.Join(dir, "state"), "--address", d.address, "--log-level", "warn", "--memory-budget", "0")
	d.cmd.Env = f.environment()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for range 12_000 {
		if c, err := client.Dial(ctx, d.address); err == nil {
			return d, c.Close()
		}
		time.Sleep(10 * time.Millisecond) // until it serves
	}
	text, _ := os.ReadFile(log.Name()) // for the message alone
	return nil, errors.Join(fmt.Errorf("capsuled does not answer: %s", text), d.stop())
}

// stop ends the daemon, as soon as it has collected what has ended. It is an
// error when it leaves an execution.
func (d *daemon) stop() error {
	for range 1000 {
		if left, err := d.executions(); err != nil || len(left) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond) // until the last record is in the history
	}
	err := errors.Join(d.cmd.Process.Signal(unix.SIGTERM), d.cmd.Wait())
	left, globErr := d.executions()
	if err = errors.Join(err, globErr); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind: %v", left))
	}
	return err
}

// executions are the directories that the daemon has.
func (d *daemon) executions() ([]string, error) {
	return filepath.Glob(filepath.Join(d.dir, "state/executions/*"))
}
