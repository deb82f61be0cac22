package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/bench"
	"github.com/capsule-run/capsule/supervisor/client"
)

// memory is what sandboxes hold while their commands wait. Sizes are
// proportional (PSS): a page that several processes share counts in parts.
type memory struct {
	Live int `json:"live"`
	// StartMS is how long it took to start them all.
	StartMS int64 `json:"start_ms"`
	// ShimKiB and InitKiB are of one sandbox, on average.
	ShimKiB float64 `json:"shim_kib"`
	InitKiB float64 `json:"init_kib"`
	// DaemonKiB before and with all of them.
	DaemonIdleKiB int64 `json:"capsuled_idle_kib"`
	DaemonKiB     int64 `json:"capsuled_kib"`
	// HostKiB is by how much the host's available memory fell, for each sandbox:
	// what the kernel holds for it is in there, and whatever others did meanwhile.
	HostKiB float64      `json:"host_kib"`
	Peers   []peerMemory `json:"peers,omitempty"`
}

type peerMemory struct {
	Name string  `json:"name"`
	Live int     `json:"live"`
	KiB  float64 `json:"kib"`
}

func (f *field) memory(ctx context.Context, live int) (m *memory, err error) {
	m = &memory{Live: live}
	c, err := client.Dial(ctx, f.daemon.address)
	if err != nil {
		return nil, err
	}
	defer c.Close() // nothing is under way
	if m.DaemonIdleKiB, err = pss(f.daemon.pid()); err != nil {
		return nil, err
	}
	before := available()
	start := time.Now()
	ids, err := f.startWaiting(ctx, c, live, live)
	defer func() {
		if err != nil {
			err = errors.Join(err, endWaiting(ctx, c, ids))
		}
	}()
	if err != nil {
		return nil, err
	}
	m.StartMS = time.Since(start).Milliseconds()
	shims, inits := 0, 0
	for _, p := range descendants(f.daemon.pid()) {
		switch {
		case p.program == "capsule-shim" && p.parent == f.daemon.pid():
			shims++
			m.ShimKiB += float64(p.pss) / float64(live)
		case p.program == "capsule-shim":
			inits++
			m.InitKiB += float64(p.pss) / float64(live)
		}
	}
	if shims != live || inits != live {
		return nil, fmt.Errorf("%d live executions, but %d shims and %d inits", live, shims, inits)
	}
	if m.DaemonKiB, err = pss(f.daemon.pid()); err != nil {
		return nil, err
	}
	m.HostKiB = float64(before-available()) / float64(live)
	if err := endWaiting(ctx, c, ids); err != nil {
		return nil, err
	}
	ids = nil
	m.Peers, err = f.peerMemory(ctx)
	return m, err
}

// endWaiting ends executions, also when ctx is done: they are nobody else's.
func endWaiting(ctx context.Context, c *client.Client, ids []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, id := range ids {
		if _, err := c.Kill(ctx, id, 0, true); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if _, err := c.Wait(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// startWaiting starts n executions that wait for ever and returns when so many
// run in all. With an error it gives those that it started.
func (f *field) startWaiting(ctx context.Context, c *client.Client, n, all int) ([]string, error) {
	request := f.request(func(r *spec.Request) {
		r.TimeoutMS = time.Hour.Milliseconds()
		r.Resources.MemoryBytes = 16 << 20
	}, f.program("work"), "wait")
	var ids []string
	for range n {
		started, err := c.Start(ctx, &api.StartRequest{Request: request})
		if err != nil {
			return ids, err
		}
		ids = append(ids, started.ID)
	}
	for {
		// In this order none is missed that begins to run meanwhile.
		coming, err := count(ctx, c, api.StatusQueued, api.StatusStarting)
		if err != nil {
			return ids, err
		}
		running, err := count(ctx, c, api.StatusRunning)
		switch {
		case err != nil:
			return ids, err
		case running == all:
			return ids, nil
		case running+coming < all:
			return ids, fmt.Errorf("of %d executions %d have ended by themselves: %w", all, all-running-coming, anyError(ctx, c, ids))
		}
		select {
		case <-time.After(20 * time.Millisecond): // until the last one runs
		case <-ctx.Done():
			return ids, ctx.Err()
		}
	}
}

// count is how many executions have one of the statuses.
func count(ctx context.Context, c *client.Client, statuses ...string) (n int, err error) {
	page := &api.Page{}
	for more := true; more; more = page.Next != "" {
		if page, err = c.List(ctx, &api.Filter{Statuses: statuses, PageSize: 1000, Page: page.Next}); err != nil {
			return 0, err
		}
		n += len(page.Executions)
	}
	return n, nil
}

// anyError is that of one of the executions that have ended.
func anyError(ctx context.Context, c *client.Client, ids []string) error {
	page, err := c.List(ctx, &api.Filter{Statuses: []string{string(spec.StatusError)}, PageSize: 1000})
	if err != nil {
		return err
	}
	for _, e := range page.Executions {
		if slices.Contains(ids, e.ID) {
			r, err := c.Wait(ctx, e.ID)
			if err != nil {
				return err
			}
			return bench.Succeeded(r)
		}
	}
	return errors.New("none of them is listed")
}

// peerMemory is what the processes of other sandboxes hold, without the command.
func (f *field) peerMemory(ctx context.Context) ([]peerMemory, error) {
	const live = 10
	var all []peerMemory
	for _, w := range f.ways {
		var argv []string
		switch w.Name {
		case "bubblewrap":
			argv = bubblewrap(f.payload, f.program("work"))
		case "nsjail":
			argv = nsjail(f.payload, f.program("work"))
		}
		if argv == nil || w.Absent != "" {
			continue
		}
		kib, err := f.heldBy(ctx, append(argv, "wait"), live)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.Name, err)
		}
		all = append(all, peerMemory{w.Name, live, kib})
	}
	return all, nil
}

// heldBy starts a command so often, waits until its own program is inside and
// returns what each of the processes around it holds.
func (f *field) heldBy(ctx context.Context, argv []string, live int) (kib float64, err error) {
	var cmds []*exec.Cmd
	defer func() {
		for _, cmd := range cmds {
			_ = cmd.Process.Kill() // it is ours, and what is inside ends with it
			_ = cmd.Wait()
		}
	}()
	for range live {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = "/", f.environment()
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		for inside := false; !inside; {
			sum := int64(0)
			own, _ := pss(cmd.Process.Pid) // 0 once it has ended
			for _, p := range descendants(cmd.Process.Pid) {
				if p.program == "work" {
					inside = true
					continue
				}
				sum += p.pss
			}
			if inside {
				kib += float64(own+sum) / float64(live)
			} else if err := errors.Join(ctx.Err(), syscall.Kill(cmd.Process.Pid, 0)); err != nil {
				return 0, err
			}
		}
	}
	return kib, nil
}

// process is one below another.
type process struct {
	parent  int
	program string
	pss     int64 // KiB
}

// family are all processes below pid, with their parents.
func family(pid int) map[int]int {
	parents := map[int]int{}
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, entry := range entries {
		fields := statFields(entry)
		if fields == nil {
			continue // it has ended
		}
		child, _ := strconv.Atoi(strings.Split(entry, "/")[2]) // a number, by the pattern
		parents[child], _ = strconv.Atoi(fields[1])            // a number, by the kernel's word
	}
	below := func(p int) bool {
		for range 100 {
			if p = parents[p]; p == pid {
				return true
			}
		}
		return false
	}
	maps.DeleteFunc(parents, func(child, _ int) bool { return !below(child) })
	return parents
}

// statFields are those of a file as of proc_pid_stat(5) from the state on; nil: it cannot
// be read.
func statFields(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// spentBelow is the processor time of all processes below pid that live.
func spentBelow(pid int) (sum time.Duration) {
	for child := range family(pid) {
		if fields := statFields(fmt.Sprintf("/proc/%d/stat", child)); fields != nil {
			user, _ := strconv.ParseInt(fields[11], 10, 64)   // numbers, by the kernel's word,
			kernel, _ := strconv.ParseInt(fields[12], 10, 64) // in hundredths of a second
			sum += time.Duration(user+kernel) * time.Second / 100
		}
	}
	return sum
}

// descendants are all processes below pid.
func descendants(pid int) []process {
	var all []process
	for child, parent := range family(pid) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		if err != nil {
			continue // it has ended
		}
		kib, err := pss(child)
		if err != nil {
			continue
		}
		all = append(all, process{parent, filepath.Base(exe), kib})
	}
	slices.SortFunc(all, func(a, b process) int { return strings.Compare(a.program, b.program) })
	return all
}

// pss is the proportional memory of a process, in KiB.
func pss(pid int) (int64, error) { return memoryOf(pid, "Pss") }

// pssOwn is what of it is of no file (Linux 5.14; 0 before), in KiB.
func pssOwn(pid int) (int64, error) { return memoryOf(pid, "Pss_Anon") }

func memoryOf(pid int, kind string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	return kibibytes(text, kind), nil
}

// available is the host's free memory and what it could free, in KiB.
func available() int64 {
	text, _ := os.ReadFile("/proc/meminfo") // every Linux has it
	return kibibytes(text, "MemAvailable")
}

// kibibytes reads a line "NAME:  N kB".
func kibibytes(text []byte, name string) int64 {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // a number, by the kernel's word
			return n
		}
	}
	return 0
}
