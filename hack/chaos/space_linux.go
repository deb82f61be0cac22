package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// said is one line of the space role on stdout.
type said struct {
	Deviation string `json:"deviation,omitempty"`
	Topic     string `json:"topic,omitempty"`
	Note      string `json:"note,omitempty"`
}

// outOfSpace has another process of this program, in a mount namespace of its
// own, run a daemon over a file system without space.
func (h *harness) outOfSpace() {
	self, err := os.Executable()
	if err == nil {
		err = os.MkdirAll(h.house.space(), 0o700)
	}
	if err != nil {
		h.findings.add("out of space: %v", err)
		return
	}
	cmd := exec.Command(self, h.house.space(), h.bin)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleSpace)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // Go makes it private
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = h.house.family.begin(cmd)
	}
	if err != nil {
		h.findings.add("out of space: %v", err)
		return
	}
	defer context.AfterFunc(h.ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })() // it may have ended
	for _, line := range lines(out) {
		var s said
		switch err := json.Unmarshal(line, &s); {
		case err != nil:
			h.findings.add("out of space: it said %q", line)
		case s.Deviation != "":
			h.findings.add("out of space: %s", s.Deviation)
		default:
			h.note(s.Topic, "%s", s.Note)
		}
	}
	if err := h.house.family.end(cmd); err != nil {
		h.findings.add("out of space: %v", err)
	}
}

// spaceTime bounds the role.
const spaceTime = 2 * time.Minute

// spaceBytes is the size of the file system.
const spaceBytes = 16 << 20

// spaceMain is the role. The arguments are a directory and that of the programs.
func spaceMain(ctx context.Context, args []string, out io.Writer) (err error) {
	if len(args) != 2 {
		return errors.New("want a directory and that of the programs")
	}
	ctx, cancel := context.WithTimeout(ctx, spaceTime)
	defer cancel()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	house := newHouse(args[0], args[1])
	root := filepath.Join(args[0], "fs")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", spaceBytes)); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(root, unix.MNT_DETACH)) }()
	house.state = layout.State(filepath.Join(root, "state"))
	house.address = house.state.Socket()
	h := newHarness(ctx, config{load: 8, bin: args[1]}, house)
	defer func() { err = errors.Join(err, house.endAll()) }()
	if h.begin() {
		h.without("full", func() (func() error, error) { return fill(filepath.Join(root, "fill")) })
		h.without("read-only", func() (func() error, error) { return readOnly(string(house.state)) })
	}
	say := json.NewEncoder(out)
	for _, topic := range h.topics {
		err = errors.Join(err, say.Encode(said{Topic: topic, Note: h.tally[topic]}))
	}
	for i, f := range h.findings.all() {
		if i == 0 {
			f += "\n" + house.lastLines(20)
		}
		err = errors.Join(err, say.Encode(said{Deviation: f}))
	}
	return err
}

// fill takes the last page of a file system, and gives all of it back.
func fill(path string) (undo func() error, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for written := 0; ; written += len(page) {
		if _, err := f.Write(page); errors.Is(err, unix.ENOSPC) {
			return func() error { return os.Remove(path) }, nil
		} else if err != nil || written > 2*spaceBytes {
			return nil, fmt.Errorf("fill up: %w", err)
		}
	}
}

// readOnly mounts a directory over itself. Descriptors that are open can still
// be written to, as after an error of a disk they could not.
func readOnly(dir string) (undo func() error, err error) {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return nil, err
	}
	return func() error { return unix.Unmount(dir, unix.MNT_DETACH) }, nil
}

// without takes the space away while executions run.
func (h *harness) without(what string, take func() (func() error, error)) {
	l := &link{address: h.house.address}
	defer l.close()
	r := newRand(h.seed + uint64(len(what)))
	var runs []*run
	for i := range 4 {
		p := &plan{kind: long, id: uuid.NewString(), reason: spec.ReasonExited, exit: i, stdout: []byte("whole\n")}
		p.request = request("sleep 2; echo $0; exit $1", "whole", i, object{})
		runs = append(runs, h.ledger.enter(p))
		if err := l.start(h.ctx, p); err != nil {
			h.findings.add("%s: start: %v", what, err)
			return
		}
	}
	err := until(h.ctx, "start of the executions", func() bool {
		for _, r := range runs {
			if !exists(h.house.state.Execution(r.id).Shim()) {
				return false
			}
		}
		return true
	})
	undo := func() error { return nil }
	if err == nil {
		undo, err = take()
	}
	if err != nil {
		h.findings.add("%s: %v", what, err)
		return
	}
	refused := h.refused(l, what)
	h.expect(l, what, runs) // told while there is no space
	if err := undo(); err != nil {
		h.findings.add("%s: %v", what, err)
		return
	}
	again := h.ledger.enter(h.planner.make(short, r))
	if err := h.drive(&worker{rand: r, link: link{address: h.house.address}}, again); err != nil {
		h.findings.add("%s: start when there is space again: %v", what, err)
	}
	h.await(what, h.left)
	h.expect(l, what+", space again", runs) // and the same from the history
	h.recheck()
	h.note("state directory "+what, "%d of 5 refused with %s and a hint, %d running ones ended well, recovered", refused, fault.IO, len(runs))
}

// refused counts the Starts that are refused as they should be.
func (h *harness) refused(l *link, what string) (n int) {
	for range 5 {
		err := l.do(h.ctx, func(c *client.Client) error {
			_, err := c.Start(h.ctx, &api.StartRequest{Request: request("echo $0; exit $1", "never", 0, object{})})
			return err
		})
		switch {
		case err == nil:
			h.findings.add("%s: an execution was started", what)
		case !isFault(err, fault.IO):
			h.findings.add("%s: start: %v, want %s", what, err, fault.IO)
		case fault.From(err, "").Hint == "":
			h.findings.add("%s: start: %v, without a hint", what, err)
		default:
			n++
		}
	}
	return n
}

// expect asks for the verdicts.
func (h *harness) expect(l *link, what string, runs []*run) {
	for _, r := range runs {
		ctx, cancel := h.within(examineTime)
		var response *spec.Response
		err := l.do(ctx, func(c *client.Client) (err error) {
			response, err = c.Wait(ctx, r.id)
			return err
		})
		cancel()
		if err == nil {
			err = r.judge(response)
		}
		if err != nil {
			h.findings.add("%s: %v", what, err)
		}
	}
}
