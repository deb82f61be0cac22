package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/bench"
	"github.com/capsule-run/capsule/supervisor/client"
	"github.com/capsule-run/capsule/supervisor/history"
)

// samplesEach is how often one thing is timed at one point of a curve.
const samplesEach = 15

// runs is the median time of an execution of the command that does nothing.
func (f *field) runs(ctx context.Context, c *client.Client, change func(*spec.Request)) (float64, error) {
	request := f.request(change, f.program("true"))
	return timed(samplesEach, func() error {
		r, err := c.Run(ctx, &api.StartRequest{Request: request})
		if err == nil {
			err = bench.Succeeded(r)
		}
		return err
	})
}

// liveCurve: what the next execution and the questions cost while others live.
func (f *field) liveCurve(ctx context.Context, c *curve) (err error) {
	c.Name, c.Of = "Live sandboxes", "live"
	c.About = "Sandboxes whose commands wait. Milliseconds for one more execution from request to response, for one page of the list, for the\ncounters of all, and for each start since the point before; capsuled's memory (PSS) and the share of one CPU that it and its\nshims use while nothing happens."
	d, err := f.startDaemon(ctx, "live", "")
	if err != nil {
		return err
	}
	conn, err := client.Dial(ctx, d.address)
	if err != nil {
		return err
	}
	defer conn.Close() // nothing is under way
	var ids []string
	defer func() {
		if err != nil {
			err = errors.Join(err, endWaiting(ctx, conn, ids))
		}
	}()
	for _, n := range []int{1, 10, 100, 300, 1000} {
		// A shim, its init and what the kernel holds for a sandbox take about 3 MiB.
		if need := int64(n-len(ids)) * 6 << 10; available() < need {
			c.Stopped = fmt.Sprintf("%d would not fit into the memory that this machine had left.", n)
			break
		}
		start := time.Now()
		more, err := f.startWaiting(ctx, conn, n-len(ids), n)
		ids = append(ids, more...)
		if err != nil {
			return err
		}
		each := float64(time.Since(start).Microseconds()) / 1000 / float64(len(more))
		c.Points = append(c.Points, n)
		if err := f.livePoint(ctx, c, d, conn); err != nil {
			return err
		}
		c.add("start, each", false, each)
	}
	start := time.Now()
	if err := endWaiting(ctx, conn, ids); err != nil {
		return err
	}
	ended := len(ids)
	ids = nil
	if c.Stopped != "" {
		c.Stopped += " "
	}
	c.Stopped += fmt.Sprintf("Killing all %d, one after the other, and waiting for the last: %.1f s.", ended, time.Since(start).Seconds())
	return nil
}

func (f *field) livePoint(ctx context.Context, c *curve, d *daemon, conn *client.Client) error {
	run, err := f.runs(ctx, conn, nil)
	if err != nil {
		return err
	}
	c.add("run", false, run)
	list, err := timed(samplesEach, func() error {
		_, err := conn.List(ctx, &api.Filter{})
		return err
	})
	if err != nil {
		return err
	}
	c.add("list, 100 of them", false, list)
	stats, err := timed(3, func() error {
		_, err := conn.Stats(ctx, nil)
		return err
	})
	if err != nil {
		return err
	}
	c.add("stats of all", true, stats)
	held, err := pss(d.pid())
	if err != nil {
		return err
	}
	c.add("capsuled, MiB", true, float64(held)/1024)
	const idle = 2 * time.Second
	// To look at the shims takes this process a while, which is not to count.
	below, start := spentBelow(d.pid()), time.Now()
	before, err := bench.Spent(d.pid())
	if err != nil {
		return err
	}
	select {
	case <-time.After(idle): // the measurement itself
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := bench.Spent(d.pid())
	if err != nil {
		return err
	}
	shims := (spentBelow(d.pid()) - below).Seconds() / time.Since(start).Seconds()
	c.add("idle, % of a CPU", true, 100*((after-before).Seconds()/idle.Seconds()+shims))
	return nil
}

// recordsCurve: what ended executions cost.
func (f *field) recordsCurve(ctx context.Context, c *curve) error {
	c.Name, c.Of = "Finished records", "records"
	c.About = "Ended executions in the history, written there directly with the request and the response of a real one. Milliseconds for one\nmore execution, the newest page of the list, a list by a label that nothing has, the oldest record, and capsuled's start\nuntil it answers, after a clean stop and, in the last column, after kill -9; the size of the file; capsuled's memory (PSS) and\nwhat of it is its own: the rest are pages of the file that it has looked at, which the kernel takes back when it wants them."
	entry, err := f.sampleEntry(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(f.dir, "records", "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	written := 0
	var oldest string
	for _, n := range []int{1, 100, 1_000, 10_000, 100_000} {
		first, err := seed(filepath.Join(dir, "history.db"), entry, written, n)
		if err != nil {
			return err
		}
		if oldest == "" {
			oldest = first
		}
		written = n
		c.Points = append(c.Points, n)
		if err := f.recordsPoint(ctx, c, oldest); err != nil {
			return err
		}
		written += samplesEach
	}
	return nil
}

// sampleEntry is a record of a real execution.
func (f *field) sampleEntry(ctx context.Context) (history.Entry, error) {
	var e history.Entry
	conn, err := client.Dial(ctx, f.daemon.address)
	if err != nil {
		return e, err
	}
	defer conn.Close() // nothing is under way
	r, err := conn.Run(ctx, &api.StartRequest{Request: f.request(nil, f.program("true"))})
	if err != nil {
		return e, err
	}
	d, err := conn.Inspect(ctx, r.ExecutionID)
	if err != nil {
		return e, err
	}
	if e.Request, err = json.Marshal(d.Request); err != nil {
		return e, err
	}
	e.Summary, e.Response = d.Summary, r.Encode(false)
	return e, nil
}

// seed brings a history from so many records to n, and returns the id of the
// first that it wrote.
func seed(path string, like history.Entry, have, n int) (first string, err error) {
	store, err := history.Open(path, history.Options{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	const batch = 1000
	for have < n {
		entries := make([]history.Entry, min(batch, n-have))
		for i := range entries {
			e := like
			e.Summary.ID = uuid.NewString()
			// In the order of their numbers, each a millisecond, all in the past.
			e.Summary.Created = like.Summary.Created.Add(-time.Hour + time.Duration(have+i)*time.Millisecond)
			entries[i] = e
			if first == "" {
				first = e.Summary.ID
			}
		}
		if err := store.Put(entries...); err != nil {
			return "", err
		}
		have += len(entries)
	}
	return first, nil
}

func (f *field) recordsPoint(ctx context.Context, c *curve, oldest string) (err error) {
	start := func() (*daemon, float64, error) {
		began := time.Now()
		d, err := f.startDaemonAt(ctx, filepath.Join(f.dir, "records"), "[state]\nhistory_count = 0\nhistory_bytes = 0\nhistory_age_seconds = 0\n")
		return d, float64(time.Since(began).Microseconds()) / 1000, err
	}
	d, began, err := start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	conn, err := client.Dial(ctx, d.address)
	if err != nil {
		return err
	}
	defer conn.Close() // nothing is under way
	run, err := f.runs(ctx, conn, nil)
	if err != nil {
		return err
	}
	c.add("run", false, run)
	for _, question := range []struct {
		name  string
		total bool
		ask   func() error
	}{
		{"list, newest page", false, func() error { _, err := conn.List(ctx, &api.Filter{All: true}); return err }},
		{"list by label", true, func() error {
			_, err := conn.List(ctx, &api.Filter{All: true, Labels: map[string]string{"no": "such"}})
			return err
		}},
		{"inspect the oldest", false, func() error { _, err := conn.Inspect(ctx, oldest); return err }},
		{"info", false, func() error { _, err := conn.Info(ctx); return err }},
	} {
		took, err := timed(3, question.ask)
		if err != nil {
			return fmt.Errorf("%s: %w", question.name, err)
		}
		c.add(question.name, question.total, took)
	}
	c.add("start of capsuled", true, began)
	info, err := os.Stat(filepath.Join(f.dir, "records", "state", "history.db"))
	if err != nil {
		return err
	}
	c.add("file, MiB", true, float64(info.Size())/(1<<20))
	held, err := pss(d.pid())
	if err != nil {
		return err
	}
	c.add("capsuled, MiB", true, float64(held)/1024)
	own, err := pssOwn(d.pid())
	if err != nil {
		return err
	}
	c.add("its own, MiB", true, float64(own)/1024)
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = d.cmd.Wait() // it was killed, which it says
	again, began, err := start()
	if err != nil {
		return err
	}
	d = again
	c.add("start after kill -9", true, began)
	return nil
}

// bindsCurve: what binds of one request cost.
func (f *field) bindsCurve(ctx context.Context, c *curve) error {
	c.Name, c.Of = "Binds", "binds"
	c.About = "Read-only binds of one request, each a directory of its own. Milliseconds of one execution from request to response."
	conn, err := client.Dial(ctx, f.daemon.address)
	if err != nil {
		return err
	}
	defer conn.Close() // nothing is under way
	sources := filepath.Join(f.dir, "sources")
	for _, n := range []int{1, 10, 50, 100, 199} {
		var binds []spec.BindMount
		for i := range n {
			source := filepath.Join(sources, strconv.Itoa(i))
			if err := os.MkdirAll(source, 0o755); err != nil {
				return err
			}
			binds = append(binds, spec.BindMount{Source: source, Destination: "/data/" + strconv.Itoa(i), Readonly: true})
		}
		run, err := f.runs(ctx, conn, func(r *spec.Request) { r.Isolation.BindMounts = binds })
		if err != nil {
			return err
		}
		c.Points = append(c.Points, n)
		c.add("run", true, run)
	}
	return nil
}

// bytesCurve: what output costs.
func (f *field) bytesCurve(ctx context.Context, c *curve) error {
	c.Name, c.Of = "Output", "MiB"
	c.About = "Bytes that a command writes to stdout. Milliseconds of one execution: all counted and the first MiB kept; all kept and in the\nresponse, up to 64 MiB."
	conn, err := client.Dial(ctx, f.daemon.address)
	if err != nil {
		return err
	}
	defer conn.Close() // nothing is under way
	for _, mib := range []int{0, 1, 16, 64, 256, 1024} {
		size := int64(mib) << 20
		run := func(change func(*spec.Request)) (float64, error) {
			request := f.request(change, f.program("work"), "write", strconv.FormatInt(size, 10))
			return timed(3, func() error {
				r, err := conn.Run(ctx, &api.StartRequest{Request: request})
				if err == nil {
					err = bench.Succeeded(r)
				}
				if err == nil && (r.Output == nil || r.Output.Stdout.BytesTotal != size) {
					err = errors.New("not every byte was counted")
				}
				return err
			})
		}
		took, err := run(nil)
		if err != nil {
			return err
		}
		c.Points = append(c.Points, mib)
		c.add("counted", true, took)
		if mib > 64 {
			continue
		}
		if took, err = run(func(r *spec.Request) { r.Resources.MaxOutputBytes = max(size, 1) }); err != nil {
			return err
		}
		c.add("kept", true, took)
	}
	return nil
}

// clientsCurve: what clients at the same time get.
func (f *field) clientsCurve(ctx context.Context, c *curve) error {
	c.Name, c.Of = "Clients", "clients"
	c.About = "Clients that each wait for one execution before the next, with a connection each. Executions per second of all, milliseconds of\none at the median and at the 99th percentile, and the processor time of one with all its processes. The time of one must\ngrow with the clients once the processors are busy."
	c.Points = []int{1, 2, 4, 8, 16, 32, 64}
	t, err := bench.Throughputs(ctx, []*bench.Way{f.through("capsuled", "", f.daemon)}, c.Points, 4*time.Second)
	if err != nil {
		return err
	}
	if t[0].Absent != "" {
		return errors.New(t[0].Absent)
	}
	for _, r := range t[0].Rates {
		c.add("per second", true, r.PerSecond)
		c.add("p50", true, float64(r.P50.Microseconds())/1000)
		c.add("p99", true, float64(r.P99.Microseconds())/1000)
		c.add("CPU, each", false, float64(r.CPU.Microseconds())/1000)
	}
	return nil
}
