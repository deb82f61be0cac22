package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
)

// until polls: the end of strangers has no event of its own.
func until(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v", what, readyTime)
		case <-time.After(pollPause):
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// awaitResults waits until all have ended and their shims with them.
func (h *harness) awaitResults(all []*victim) error {
	return until(h.ctx, "end of the executions", func() bool {
		for _, v := range all {
			if dir := h.house.state.Execution(v.id); !exists(dir.Result()) || !unlocked(dir) {
				return false
			}
		}
		return true
	})
}

func (h *harness) awaitShims(all []*victim) error {
	return until(h.ctx, "start of the executions", func() bool {
		for _, v := range all {
			if !exists(h.house.state.Execution(v.id).Shim()) {
				return false
			}
		}
		return true
	})
}

// awaitBlocker waits until the first one, which the others wait for, has ended.
func (h *harness) awaitBlocker(all []*victim) error { return h.awaitResults(all[:1]) }

func unlocked(dir layout.Dir) bool {
	f, err := os.Open(string(dir))
	if err != nil {
		return false
	}
	defer f.Close() // gives the lock back
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
