package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// settleTime bounds the wait for what ends by itself.
const settleTime = 30 * time.Second

// measure is what the daemon holds; -1: not known.
type measure struct{ descriptors, goroutines int }

// begin starts the daemon, warms it up and measures it.
func (h *harness) begin() bool {
	err := h.house.start()
	if err == nil {
		err = h.house.ready(h.ctx)
	}
	if err != nil {
		h.findings.add("start capsuled: %v", err)
		return false
	}
	w := &worker{link: link{address: h.house.address}, rand: newRand(h.seed)}
	r := h.ledger.enter(h.planner.make(short, w.rand))
	if err := h.drive(w, r); err != nil { // compiles the filter
		h.findings.add("the first execution: %v", err)
		return false
	}
	w.link.close()
	h.await("the first execution", h.left)
	h.quiet = h.measure()
	return true
}

// settle checks after a phase that nothing is left.
func (h *harness) settle(name string) {
	h.await(name, h.left)
	h.await(name, func() []string {
		now := h.measure()
		var more []string
		if now.descriptors > h.quiet.descriptors {
			more = append(more, fmt.Sprintf("capsuled has %d descriptors, %d before: %v", now.descriptors, h.quiet.descriptors, h.descriptors()))
		}
		if now.goroutines > h.quiet.goroutines {
			more = append(more, fmt.Sprintf("capsuled has %d goroutines, %d before", now.goroutines, h.quiet.goroutines))
		}
		return more
	})
	now := h.measure()
	h.note("capsuled after "+name, "%d descriptors (%d at first), %d goroutines (%d)", now.descriptors, h.quiet.descriptors, now.goroutines, h.quiet.goroutines)
}

// await waits until a look finds nothing.
func (h *harness) await(when string, look func() []string) {
	end := time.Now().Add(settleTime)
	for {
		left := look()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) || h.ctx.Err() != nil {
			h.findings.add("after %s: left behind:\n%s", when, strings.Join(left, "\n"))
			return
		}
		time.Sleep(5 * pollPause) // what is waited for has no event of its own
	}
}

// left is all that executions made and that should be gone.
func (h *harness) left() []string {
	left := h.house.directories()
	for _, pid := range h.house.family.orphans() {
		left = append(left, fmt.Sprintf("child %d %q", pid, commandLine(pid)))
	}
	for _, pid := range children(h.house.pid()) {
		left = append(left, fmt.Sprintf("child of capsuled %d %q", pid, commandLine(pid)))
	}
	if len(left) > 0 {
		return left // the looks that follow are dear
	}
	left = append(left, h.inGroups()...)
	left = append(left, h.groups()...)
	return append(left, h.house.locks()...)
}

// directories are those of executions, gone-* included, and mounts in the house.
func (h *house) directories() []string {
	entries, err := os.ReadDir(h.state.Executions())
	if err != nil {
		return []string{err.Error()}
	}
	var left []string
	for _, e := range entries {
		left = append(left, "directory "+e.Name())
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return append(left, err.Error())
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, string(h.state)) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	return left
}

// inGroups are processes in a cgroup of one of the executions.
func (h *harness) inGroups() []string {
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is valid
	var left []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && h.named(string(text)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))) // it is a number by the pattern
			left = append(left, fmt.Sprintf("process %d %q in %s", pid, commandLine(pid), strings.TrimSpace(string(text))))
		}
	}
	return left
}

// named tells whether a text has the id of one of the executions.
func (h *harness) named(text string) bool {
	const prefix, size = "capsule-", 36
	for {
		_, rest, found := strings.Cut(text, prefix)
		if !found {
			return false
		}
		if len(rest) >= size && h.ledger.of(rest[:size]) != nil {
			return true
		}
		text = rest
	}
}

// groups are the cgroups of the executions.
func (h *harness) groups() []string {
	var left []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && h.named(d.Name()) {
			left = append(left, "cgroup "+path)
		}
		return nil // others come and go meanwhile
	})
	return left
}

// locks are the slots of host ids in use.
func (h *house) locks() []string {
	f, err := os.OpenFile(string(h.state)+"/slots", os.O_RDWR, 0)
	if err != nil {
		return nil // not made yet
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return []string{"F_OFD_GETLK: " + err.Error()}
	}
	if lock.Type != unix.F_UNLCK {
		return []string{fmt.Sprintf("slot %d is locked", lock.Start)}
	}
	return nil
}

// descriptors are those of the daemon.
func (h *harness) descriptors() []string {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", h.house.pid())) // the pattern is valid
	var found []string
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil {
			found = append(found, target)
		}
	}
	sort.Strings(found)
	return found
}

func (h *harness) measure() measure {
	return measure{len(h.descriptors()), h.goroutines()}
}

// goroutines asks the metrics of the daemon.
func (h *harness) goroutines() int {
	conn, err := net.DialTimeout("unix", h.house.metrics(), dialTime)
	if err != nil {
		return -1
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(dialTime)) // a socket has deadlines
	if _, err := fmt.Fprint(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		return -1
	}
	for s := bufio.NewScanner(conn); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "go_goroutines "); ok {
			n, _ := strconv.Atoi(value) // 0 is as good as any for what is no number
			return n
		}
	}
	return -1
}

// recheck asks a new daemon for every verdict again, and for the list of all.
func (h *harness) recheck() {
	if h.ctx.Err() != nil {
		return
	}
	if err := h.house.stop(); err != nil {
		h.findings.add("stop capsuled: %v", err)
	}
	if !h.resurrect(true) {
		return
	}
	l := &link{address: h.house.address}
	defer l.close()
	listed, err := h.list(l)
	if err != nil {
		h.findings.add("list: %v", err)
		return
	}
	for _, r := range h.ledger.all() {
		if h.ctx.Err() != nil {
			return
		}
		h.recheckOne(l, r, listed[r.id])
		delete(listed, r.id)
	}
	for id := range listed {
		h.findings.add("execution %s is listed and nobody started it", id)
	}
}

func (h *harness) recheckOne(l *link, r *run, rows []api.Summary) {
	response, err := h.wait(l, r.id)
	if isFault(err, fault.NotFound) && !r.wasStarted() && len(rows) == 0 {
		r.mu.Lock()
		r.outcome = never
		r.mu.Unlock()
		return
	}
	if err == nil {
		err = r.judge(response)
	}
	if err != nil {
		h.findings.add("asked again, %s %s: %v", r.kind, r.id, err)
		return
	}
	if len(rows) != 1 || rows[0].Status+"/"+rows[0].Reason != r.status {
		h.findings.add("%s %s is listed as %+v; its verdict is %s", r.kind, r.id, rows, r.status)
	}
}

// list is all that the daemon knows.
func (h *harness) list(l *link) (map[string][]api.Summary, error) {
	listed := map[string][]api.Summary{}
	filter := &api.Filter{All: true, PageSize: 500}
	for {
		var page *api.Page
		err := l.do(h.ctx, func(c *client.Client) (err error) {
			page, err = c.List(h.ctx, filter)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, e := range page.Executions {
			listed[e.ID] = append(listed[e.ID], e)
		}
		if filter.Page = page.Next; page.Next == "" {
			return listed, nil
		}
	}
}

// within is the run's context with a bound of its own.
func (h *harness) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.ctx, d)
}
