// Soak runs many short executions through one capsuled, then many at once,
// then clients that leave in the middle, and prints what the daemon holds
// before and after: memory, descriptors, goroutines. It fails when an execution
// gives a wrong verdict or the daemon holds on to something.
//
//	go run ./hack/soak [-n 20000] [-clients 8] [-live 300] [-aborts 1000] [-bin bin]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"
)

// config is what there is to set.
type config struct {
	executions, clients, live, aborts int
	bin                               string
}

func main() {
	var c config
	flag.IntVar(&c.executions, "n", 20_000, "short executions")
	flag.IntVar(&c.clients, "clients", 8, "clients at a time")
	flag.IntVar(&c.live, "live", 300, "sandboxes that live at once")
	flag.IntVar(&c.aborts, "aborts", 1000, "attaches that are given up")
	flag.StringVar(&c.bin, "bin", "bin", "directory of the programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// stage is one load on the daemon.
type stage struct {
	name string
	run  func(context.Context, *daemon) error
}

func soak(ctx context.Context, c config) (err error) {
	d, err := startDaemon(ctx, c.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	stages := []stage{
		{"warm up", func(ctx context.Context, d *daemon) error { return d.short(ctx, 50*c.clients, c.clients) }},
		{fmt.Sprintf("%d executions, %d at a time", c.executions, c.clients), func(ctx context.Context, d *daemon) error { return d.short(ctx, c.executions, c.clients) }},
		{fmt.Sprintf("%d live at once", c.live), func(ctx context.Context, d *daemon) error { return d.many(ctx, c.live) }},
		{fmt.Sprintf("%d attaches given up", c.aborts), func(ctx context.Context, d *daemon) error { return d.abort(ctx, c.aborts) }},
		{"a client that never reads", func(ctx context.Context, d *daemon) error { return d.deaf(ctx) }},
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "after\tseconds\tmemory MiB\theap MiB\tdescriptors\tgoroutines\tthreads")
	var first, last held
	for i, s := range stages {
		began := time.Now()
		if err := s.run(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if last, err = d.settled(ctx, first); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if i == 0 {
			first = last
		}
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%d\t%d\t%d\n", s.name, time.Since(began).Seconds(), last.memory, last.heap, last.descriptors, last.goroutines, last.threads)
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return last.against(first)
}
