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
		filler := filepath.Join(root, "fill")
		h.without("full", func() error { return fill(filler) }, func() error { return os.Remove(filler) })
		dir := string(house.state)
		h.without("read-only", func() error { return readOnly(dir) }, func() error { return unix.Unmount(dir, unix.MNT_DETACH) })
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

// fill takes the last page of a file system, with a file that may have some already.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for written := 0; ; written += len(page) {
		if _, err := f.Write(page); errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil || written > 2*spaceBytes {
			return fmt.Errorf("fill up: %w", err)
		}
	}
}

// readOnly mounts a directory over itself, if it is not yet. Descriptors that are
// open can still be written to, as after an error of a disk they could not.
func readOnly(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Flags&unix.ST_RDONLY != 0 {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// without takes the space away while executions run. take is called again when
// some may have come back.
func (h *harness) without(what string, take, undo func() error) {
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
	if err == nil {
		err = take()
	}
	if err != nil {
		h.findings.add("%s: %v", what, err)
		return
	}
	refused, started := h.refused(l, what, take)
	runs = append(runs, started...)
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
	h.note("state directory "+what, "%d refused with %s and a hint, %d running ones ended well, recovered", refused, fault.IO, len(runs))
}

// refusals is how many Starts are to be refused.
const refusals = 5

// refused counts the Starts that are refused as they should be. On a full disk
// one may find space after all, that of a directory which has just gone: it is
// to end as well as any. Of those there cannot be many.
func (h *harness) refused(l *link, what string, take func() error) (n int, started []*run) {
	for range 4 * refusals {
		if err := take(); err != nil {
			h.findings.add("%s: %v", what, err)
			return n, started
		}
		p := &plan{kind: short, id: uuid.NewString(), reason: spec.ReasonExited, stdout: []byte("squeezed\n")}
		p.request = request("echo $0; exit $1", "squeezed", 0, object{})
		err := l.do(h.ctx, func(c *client.Client) error {
			_, err := c.Start(h.ctx, &api.StartRequest{ID: p.id, Request: p.request})
			return err
		})
		switch {
		case err == nil:
			started = append(started, h.ledger.enter(p))
			continue
		case !isFault(err, fault.IO):
			h.findings.add("%s: start: %v, want %s", what, err, fault.IO)
		case fault.From(err, "").Hint == "":
			h.findings.add("%s: start: %v, without a hint", what, err)
		}
		if n++; n == refusals {
			return n, started
		}
	}
	h.findings.add("%s: %d executions were started, and %d refused", what, len(started), n)
	return n, started
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
