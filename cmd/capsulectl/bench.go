package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	timing "github.com/capsule-run/capsule/supervisor/bench"
)

const benchHelp = `Measure what a sandbox costs on this host: a command (default: true) bare, in a
sandbox of each kind of call, and under bubblewrap where that is installed. Every
round runs each way once, in random order, so that whatever else the machine does
falls on all alike. Compare the numbers of one call only, and let it rest meanwhile.

Usage:
  capsulectl bench [flags] [--] [CMD ARG...]

Flags:
  -n, --rounds N       rounds of the latency part, 1 to 100000 (default 100)
  --clients LIST       numbers of clients for executions per second (default 1,2,4,8; none: leave it out)
  --seconds S          time for each way and number of clients, 0.1 to 600 (default 1)
  --address SOCKET     the daemon to ask (default $CAPSULE_ADDRESS, else capsuled.sock of the state directory)
  --embedded           measure without a daemon even if there is one
  -o, --output FORMAT  human (or table), json, or template=TEXT, a Go template over the JSON
  -h, --help           print this text

The command must be found in a sandbox without any flags and exit with 0.
A daemon that answers is measured too: over one connection, and with a new
capsulectl for each execution. p50 and p99 are medians and 99th percentiles,
the ratios are to the median of the bare command.

Examples:
  capsulectl bench
  capsulectl bench -n 500 --clients none
  capsulectl bench -- python3 -c 'print(1)'
  capsulectl bench -o json | jq '.latency[] | {name, p50_ratio}'
  capsulectl bench --clients none -o template='{{range .latency}}{{.name}} {{.p50_ratio}}{{"\n"}}{{end}}'
`

// benchFlags are what the caller of capsulectl bench set.
type benchFlags struct {
	rounds   int
	clients  []int
	long     time.Duration
	address  string
	embedded bool
	format   format
	command  []string
}

// benchCommand measures the host.
func (c *console) benchCommand(code *int) *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "measure what a sandbox costs on this host", ArgsUsage: "[--] [CMD ARG...]", HideHelpCommand: true,
		CustomHelpTemplate: literal(benchHelp), OnUsageError: usageError,
		Flags: []cli.Flag{
			outputFlag(), &cli.IntFlag{Name: "rounds", Aliases: []string{"n"}, Value: 100}, &cli.StringFlag{Name: "clients", Value: "1,2,4,8"},
			&cli.Float64Flag{Name: "seconds", Value: 1}, &cli.StringFlag{Name: "address"}, &cli.BoolFlag{Name: "embedded"},
		},
		Action: func(ctx *cli.Context) error {
			f, err := readBenchFlags(ctx)
			if err != nil {
				return err
			}
			running, stop := signal.NotifyContext(ctx.Context, os.Interrupt, syscall.SIGTERM)
			defer stop()
			document, text, err := c.bench(running, f)
			if err != nil {
				if running.Err() != nil {
					return fault.New(fault.Cancelled, "capsulectl bench", "interrupted")
				}
				return err
			}
			*code, err = c.present(&f.format, document, text)
			return err
		},
	}
}

func readBenchFlags(ctx *cli.Context) (f benchFlags, err error) {
	f = benchFlags{rounds: ctx.Int("rounds"), address: ctx.String("address"), embedded: ctx.Bool("embedded"), command: ctx.Args().Slice()}
	if f.format, err = formatOf(ctx); err != nil {
		return f, err
	}
	if f.rounds < 1 || f.rounds > 100_000 {
		return f, fault.New(fault.OutOfRange, "flag --rounds", fmt.Sprintf("%d is not between 1 and 100000", f.rounds))
	}
	seconds := ctx.Float64("seconds")
	if !(seconds >= 0.1 && seconds <= 600) {
		return f, fault.New(fault.OutOfRange, "flag --seconds", fmt.Sprintf("%g is not between 0.1 and 600", seconds))
	}
	f.long = time.Duration(seconds * float64(time.Second))
	if f.embedded && f.address != "" {
		return f, usage("bench", "--embedded cannot be combined with --address")
	}
	if ctx.String("clients") == "none" {
		return f, nil
	}
	for _, word := range strings.Split(ctx.String("clients"), ",") {
		n := 0
		if _, err := fmt.Sscanf(word+"\n", "%d\n", &n); err != nil || n < 1 || n > 1000 {
			return f, fault.New(fault.InvalidValue, "flag --clients", fmt.Sprintf("%q is not a number between 1 and 1000", word)).
				WithHint("Give numbers with commas between them, such as 1,2,4,8, or none.")
		}
		f.clients = append(f.clients, n)
	}
	return f, nil
}

// bench measures and returns the report, for programs and for people.
func (c *console) bench(ctx context.Context, f benchFlags) (document any, text string, err error) {
	// A shim that outlives its client comes to this process, which counts it.
	if err := becomeSubreaper(); err != nil {
		return nil, "", err
	}
	if len(f.command) == 0 {
		f.command = []string{"true"}
	}
	ways, err := c.benchWays(ctx, f)
	if err != nil {
		return nil, "", err
	}
	done := c.progress(fmt.Sprintf("measuring %d ways, %d rounds", len(ways), f.rounds))
	latency, err := timing.Latencies(ctx, ways, f.rounds)
	done()
	if err != nil {
		return nil, "", fault.Wrap(fault.MonitorFailed, "measure", err)
	}
	for i := range latency {
		ways[i].Absent = latency[i].Absent
	}
	if latency[0].Absent != "" {
		return nil, "", fault.New(fault.CommandNotFound, "measure "+f.command[0], "the bare command fails: "+latency[0].Absent).WithHint("Give a command that exits with 0.")
	}
	done = c.progress("measuring throughput")
	rates, err := timing.Throughputs(ctx, ways, f.clients, f.long)
	done()
	if err != nil {
		return nil, "", fault.Wrap(fault.MonitorFailed, "measure", err)
	}
	document = map[string]any{"kernel": kernelRelease(), "command": f.command, "rounds": f.rounds, "latency": latency, "throughput": rates}
	return document, benchText(f, latency, rates), nil
}

// benchWays are those that this host has.
func (c *console) benchWays(ctx context.Context, f benchFlags) ([]*timing.Way, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fault.Wrap(fault.IO, "find capsulectl", err)
	}
	program, err := exec.LookPath(f.command[0])
	if err != nil {
		return nil, fault.Wrap(fault.CommandNotFound, "find "+f.command[0], err)
	}
	env := os.Environ()
	way := func(name, walls string, argv ...string) *timing.Way {
		return &timing.Way{Name: name, Walls: walls, Open: timing.Command{Argv: argv, Env: env}.Open}
	}
	const walls = "namespaces, cgroup, seccomp, verdict"
	ways := []*timing.Way{
		way("bare", "none", append([]string{program}, f.command[1:]...)...),
		way("capsulectl run, no daemon", walls, append([]string{self, "run", "--embedded", "--"}, f.command...)...),
	}
	if !f.embedded {
		l, err := c.daemon(ctx, f.address)
		if err != nil {
			return nil, err
		}
		if l != nil {
			through, err := c.throughDaemon(ctx, l, f, walls)
			if err != nil {
				return nil, err
			}
			argv := []string{self, "run"}
			if f.address != "" {
				argv = append(argv, "--address", f.address)
			}
			asking := way("capsulectl run, daemon", walls, append(append(argv, "--"), f.command...)...)
			asking.Daemon = through.Daemon
			ways = append(ways, through, asking)
		}
	}
	if bwrap, err := exec.LookPath("bwrap"); err == nil {
		ways = append(ways, way("bubblewrap", "namespaces", append([]string{bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr",
			"--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--"}, f.command...)...))
	}
	return ways, nil
}

// throughDaemon is the way over one connection. The link that is given is closed.
func (c *console) throughDaemon(ctx context.Context, l *link, f benchFlags, walls string) (*timing.Way, error) {
	defer l.close()
	info, err := l.current().Info(ctx)
	if err != nil {
		return nil, err
	}
	r := spec.Default()
	r.Command = f.command
	dial := func(ctx context.Context) (timing.Runner, error) {
		own, err := c.daemon(ctx, f.address)
		if err != nil {
			return nil, err
		}
		if own == nil {
			return nil, errors.New("the daemon is gone")
		}
		runner, ok := own.current().(timing.Runner)
		if !ok {
			own.close()
			return nil, errors.New("this supervisor has no connection")
		}
		return runner, nil
	}
	return &timing.Way{Name: "daemon, one connection", Walls: walls, Daemon: info.Pid, Open: timing.Through(dial, r.Encode(), nil)}, nil
}

// benchText is the report for people.
func benchText(f benchFlags, latency []timing.Latency, rates []timing.Throughput) string {
	var b strings.Builder
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }
	fmt.Fprintf(&b, "%s: %d rounds, milliseconds; Linux %s\n\n", strings.Join(f.command, " "), f.rounds, kernelRelease())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WAY\tMIN\tP50\tP90\tP99\tP50 RATIO\tP99 RATIO\tWALLS")
	for _, l := range latency {
		if l.Count == 0 {
			fmt.Fprintf(w, "%s\t%s\n", l.Name, l.Absent)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.1f\t%.1f\t%s\n", l.Name, ms(l.Min), ms(l.P50), ms(l.P90), ms(l.P99), l.Ratio, l.RatioP99, l.Walls)
	}
	_ = w.Flush() // into memory
	if len(f.clients) == 0 {
		return b.String()
	}
	b.WriteString("\nExecutions per second, and milliseconds of processor time of one with all its processes:\n\n")
	fmt.Fprint(w, "WAY")
	for _, n := range f.clients {
		fmt.Fprintf(w, "\t%d", n)
	}
	fmt.Fprintln(w)
	for _, t := range rates {
		fmt.Fprint(w, t.Name)
		for _, r := range t.Rates {
			fmt.Fprintf(w, "\t%.0f (%s)", r.PerSecond, ms(r.CPU))
		}
		if len(t.Rates) < len(f.clients) {
			fmt.Fprintf(w, "\t%s", t.Absent)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	return b.String()
}
