// Bench times one sandboxed run of a program that does nothing, from the start
// of the command to its exit, against a bare fork+exec and other sandboxes.
//
// Every round runs each peer once, in a fresh random order, so that whatever
// else the machine does falls on all of them alike. Read the medians and the
// ratios within one run; numbers of different runs do not compare.
//
//	go run ./hack/bench [-n 200] [-bin bin] [-only name,name] [-json]
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// warmUp is the number of rounds that are run and not counted: page cache,
// compiled filters, first-use directories.
const warmUp = 5

func main() {
	var (
		rounds = flag.Int("n", 200, "rounds; every round runs each peer once")
		bin    = flag.String("bin", "bin", "directory of capsulectl")
		only   = flag.String("only", "", "comma-separated names of peers to run, default all")
		asJSON = flag.Bool("json", false, "print JSON instead of a table")
	)
	flag.Parse()
	if err := run(*rounds, *bin, *only, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds int, bin, only string, asJSON bool) (err error) {
	if rounds < 1 {
		return errors.New("-n must be at least 1")
	}
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "capsule-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	// Sandboxed users must reach the program that is timed.
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	peers, err := prepare(work, bin)
	if err != nil {
		return err
	}
	if only != "" {
		names := strings.Split(only, ",")
		peers = slices.DeleteFunc(peers, func(p *peer) bool { return !slices.Contains(names, p.Name) })
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	if err := measure(peers, rounds, interrupted); err != nil {
		return err
	}
	if asJSON {
		return writeJSON(os.Stdout, rounds, peers)
	}
	writeTable(os.Stdout, rounds, peers)
	return nil
}

// measure fills in the peers' samples. A peer that fails while warming up is
// left out with its reason; one that fails later ends the measurement, as its
// numbers would not be of the thing that is compared.
func measure(peers []*peer, rounds int, interrupted <-chan os.Signal) error {
	order := slices.Clone(peers)
	for round := -warmUp; round < rounds; round++ {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, p := range order {
			select {
			case s := <-interrupted:
				return fmt.Errorf("%v in round %d", s, round)
			default:
			}
			if p.Absent != "" {
				continue
			}
			took, err := once(p)
			switch {
			case err != nil && round < 0:
				p.Absent = err.Error()
			case err != nil:
				return fmt.Errorf("%s, round %d: %w", p.Name, round, err)
			case round >= 0:
				p.samples = append(p.samples, took)
			}
		}
	}
	return nil
}

// once runs the peer and returns the time from before fork to after wait.
func once(p *peer) (time.Duration, error) {
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = p.env
	if p.stdin != nil {
		// A file, as a pipe would need a copying goroutine inside the measure.
		in, err := os.Open(*p.stdin)
		if err != nil {
			return 0, err
		}
		defer in.Close()
		cmd.Stdin = in
	}
	out, err := os.OpenFile(p.out, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	var took time.Duration
	timed := func() {
		start := time.Now()
		err = cmd.Run()
		took = time.Since(start)
	}
	if p.thread == nil {
		timed()
	} else {
		done := make(chan struct{})
		p.thread <- func() { timed(); close(done) }
		<-done
	}
	said := make([]byte, 64<<10)
	n, readErr := out.ReadAt(said, 0)
	if readErr != nil && readErr != io.EOF {
		return 0, readErr
	}
	said = bytes.TrimSpace(said[:n])
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, firstLine(said))
	}
	if p.response {
		return took, p.takePhases(said)
	}
	return took, nil
}

// takePhases keeps what a capsule response says of its own start-up.
func (p *peer) takePhases(document []byte) error {
	var r struct {
		Status  string
		Metrics struct {
			StartupUS *int64           `json:"startup_us"`
			Phases    map[string]int64 `json:"startup_phases_us"`
		}
	}
	if err := json.Unmarshal(document, &r); err != nil {
		return fmt.Errorf("response: %w", err)
	}
	if r.Status != "success" {
		return fmt.Errorf("response: %s", firstLine(document))
	}
	if r.Metrics.StartupUS != nil {
		p.phases["startup"] = append(p.phases["startup"], *r.Metrics.StartupUS)
	}
	for name, us := range r.Metrics.Phases {
		p.phases[name] = append(p.phases[name], us)
	}
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if len(line) > 200 {
		line = line[:200]
	}
	return string(line)
}
