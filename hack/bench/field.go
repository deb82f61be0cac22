package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/bench"
	"github.com/capsule-run/capsule/supervisor/client"
	"github.com/capsule-run/capsule/supervisor/config"
)

// field is everything that is compared, made ready.
type field struct {
	dir     string // of all files but
	states  string // what runtimes keep of their sandboxes
	payload string // directory of the programs that run inside
	bin     string
	ways    []*bench.Way
	daemon  *daemon // the one that the sections about capsuled alone use
	notes   []peerNote
	undo    []func() error

	mu     sync.Mutex
	phases map[string]map[string][]int64 // by way and phase, microseconds; guarded by mu
}

// newField builds the programs, starts the daemons and lists the ways.
func newField(ctx context.Context, s settings) (f *field, err error) {
	dir, err := os.MkdirTemp("", "capsule-bench-")
	if err != nil {
		return nil, err
	}
	f = &field{dir: dir, payload: filepath.Join(dir, "payload"), bin: s.bin, phases: map[string]map[string][]int64{}}
	f.undo = append(f.undo, func() error { return os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	// Sandboxed users must reach the programs that are timed.
	if err := os.Chmod(dir, 0o755); err != nil {
		return f, err
	}
	if f.states, err = os.MkdirTemp(inMemory(dir), "capsule-bench-"); err != nil {
		return f, err
	}
	f.undo = append(f.undo, func() error { return os.RemoveAll(f.states) })
	if err := f.compile(); err != nil {
		return f, err
	}
	if s.curves != "" {
		// One daemon with the standard configuration, and no peers.
		f.daemon, err = f.startDaemon(ctx, "standard", "")
		return f, err
	}
	own, err := f.own(ctx)
	if err != nil {
		return f, err
	}
	f.ways = slices.Concat([]*bench.Way{f.bare()}, f.floors(), own, f.peers(ctx))
	if s.only != "" {
		names := strings.Split(s.only, ",")
		for _, name := range names {
			if !slices.ContainsFunc(f.ways, func(w *bench.Way) bool { return w.Name == name }) {
				var all []string
				for _, w := range f.ways {
					all = append(all, w.Name)
				}
				return f, fmt.Errorf("-only: %q is none of %s", name, strings.Join(all, ", "))
			}
		}
		f.ways = append(f.ways[:1], slices.DeleteFunc(f.ways[1:], func(w *bench.Way) bool { return !slices.Contains(names, w.Name) })...)
	}
	return f, nil
}

// inMemory is where there is a tmpfs, as /run is on a host that boots: what runtimes
// keep there is not on a disk. Without one it is the given directory.
func inMemory(otherwise string) string {
	for _, dir := range []string{"/run", "/dev/shm"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC && unix.Access(dir, unix.W_OK) == nil {
			return dir
		}
	}
	return otherwise
}

// close takes back what was made, last things first.
func (f *field) close() error {
	var err error
	for _, undo := range slices.Backward(f.undo) {
		err = errors.Join(err, undo())
	}
	return err
}

func (f *field) program(name string) string { return filepath.Join(f.payload, name) }

func (f *field) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir, "XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR"), "XDG_STATE_HOME=" + filepath.Join(f.dir, "xdg"),
		"CAPSULE_STATE=" + filepath.Join(f.states, "state")}
}

func (f *field) bare() *bench.Way {
	return &bench.Way{Name: "fork+exec", Walls: "none", Open: bench.Command{Argv: []string{f.program("true")}, Env: f.environment()}.Open}
}

// request is one for a program of ours.
func (f *field) request(change func(*spec.Request), command ...string) []byte {
	r := spec.Default()
	r.Command = command
	r.Isolation.ReadonlyPaths = []string{f.payload}
	if change != nil {
		change(r)
	}
	return r.Encode()
}

// own are the ways of capsule.
func (f *field) own(ctx context.Context) ([]*bench.Way, error) {
	const walls = "namespaces, cgroup, seccomp, verdict"
	program := f.program("true")
	capsulectl := filepath.Join(f.bin, "capsulectl")
	document := filepath.Join(f.dir, "request.json")
	if err := os.WriteFile(document, f.request(nil, program), 0o644); err != nil {
		return nil, err
	}
	embedded := bench.Command{Argv: []string{capsulectl, "run", "--embedded", "--readonly", f.payload, "--", program}, Env: f.environment()}
	asJSON := bench.Command{Argv: []string{capsulectl, "run", "--embedded", "--json"}, Env: f.environment(), Stdin: document, Check: func(said []byte) error {
		r, err := spec.DecodeResponse(said)
		if err != nil {
			return fmt.Errorf("response: %w: %s", err, bench.FirstLine(said))
		}
		f.look("capsulectl run --json (no daemon)")(r)
		return bench.Succeeded(r)
	}}
	cold, err := f.startDaemon(ctx, "cold", "[pool]\nsize = 0\n")
	if err != nil {
		return nil, err
	}
	f.daemon = cold
	ways := []*bench.Way{
		f.through("capsuled (cold)", walls, cold),
		f.asking("capsulectl run (capsuled cold)", walls, cold),
		{Name: "capsulectl run (no daemon)", Walls: walls, Open: embedded.Open},
		{Name: "capsulectl run --json (no daemon)", Walls: walls, Open: asJSON.Open},
	}
	// A build that prepares nothing ahead has one kind of daemon.
	if config.Default().Pool.Size == 0 {
		return ways, nil
	}
	warm, err := f.startDaemon(ctx, "warm", "")
	if err != nil {
		return nil, err
	}
	return append([]*bench.Way{f.through("capsuled (warm)", walls, warm), f.asking("capsulectl run (capsuled warm)", walls, warm)}, ways...), nil
}

// through is the way over one connection per client.
func (f *field) through(name, walls string, d *daemon) *bench.Way {
	dial := func(ctx context.Context) (bench.Runner, error) { return client.Dial(ctx, d.address) }
	return &bench.Way{Name: name, Walls: walls, Daemon: d.pid(), Open: bench.Through(dial, f.request(nil, f.program("true")), f.look(name))}
}

// asking is a new client process for each execution.
func (f *field) asking(name, walls string, d *daemon) *bench.Way {
	return &bench.Way{Name: name, Walls: walls, Daemon: d.pid(), Open: bench.Command{
		Argv: []string{filepath.Join(f.bin, "capsulectl"), "run", "--readonly", f.payload, "--", f.program("true")}, Env: append(f.environment(), "CAPSULE_ADDRESS="+d.address),
	}.Open}
}

// look keeps what a response says of its own start-up.
func (f *field) look(way string) func(*spec.Response) {
	return func(r *spec.Response) {
		if r.Metrics.StartupUS == nil {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		of := f.phases[way]
		if of == nil {
			of = map[string][]int64{}
			f.phases[way] = of
		}
		of["startup"] = append(of["startup"], *r.Metrics.StartupUS)
		for name, us := range r.Metrics.StartupPhases {
			of[name] = append(of[name], us)
		}
	}
}

// phaseMedians are of what was looked at until now.
func (f *field) phaseMedians() map[string]map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]map[string]int64{}
	for way, phases := range f.phases {
		all[way] = map[string]int64{}
		for name, samples := range phases {
			all[way][name] = bench.Median(samples)
		}
	}
	return all
}

// compile builds the programs that run inside, static, so that nobody pays for a
// dynamic linker or needs libraries.
func (f *field) compile() error {
	if err := os.Mkdir(f.payload, 0o755); err != nil {
		return err
	}
	for name, source := range map[string]string{"true": "int main(void) { return 0; }\n", "work": work, "starter-c": starterC} {
		file := filepath.Join(f.dir, name+".c")
		if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
			return err
		}
		if out, err := exec.Command("gcc", "-O2", "-static", "-o", f.program(name), file).CombinedOutput(); err != nil {
			return fmt.Errorf("gcc: %w: %s", err, out)
		}
	}
	return errors.Join(f.compileGo("empty", emptyGo), f.compileGo("starter-go", starterGo))
}

// marshal is for requests of other sandboxes, whose parts are all ours.
func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
