package budget

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// measuringFor names the file that a re-executed test writes its rows to.
const measuringFor = "CAPSULE_BUDGET_ROWS"

// A measurement is made so often, and the least of each number is taken: what
// the scheduler and the kernel do by chance only ever adds.
const (
	warmUps = 2 // filters are compiled, directories and files come into being
	repeats = 4
	batch   = 8 // executions between two looks at a daemon
)

// times is how many of n a slow machine makes: a traced execution takes seconds there.
func times(n int) int {
	if slow() > 1 {
		return n / 2
	}
	return n
}

// scenario is one way to an execution. Adding one is adding a line, and its rows
// with -update.
type scenario struct {
	name string
	// daemon is the configuration of the capsuled that is asked, and that is
	// traced with all it starts; empty: capsulectl is traced, without a daemon.
	daemon string
	// client: not the daemon is traced, but the capsulectl that asks it.
	client bool
	// ready: each execution meets a sandbox that is ready, and is told from what is
	// prepared for the next one.
	ready bool
}

var scenarios = []scenario{
	{name: "capsulectl run, no daemon"},
	{name: "capsuled, cold", daemon: "[pool]\nsize = 0\n"},
	{name: "capsuled, ready", daemon: "[pool]\nsize = 1\nidle_seconds = 3600\n", ready: true},
	{name: "capsulectl run, daemon", daemon: "[pool]\nsize = 0\n", client: true},
}

func measure(t *testing.T) []row {
	t.Helper()
	var all []row
	for _, s := range scenarios {
		p := place{T: t, bin: binaries(t), dir: directory(t)}
		var samples []counts
		switch {
		case s.daemon == "":
			// So long that others find its shim, which a quicker one spares itself.
			samples = p.commands("run", "--embedded", "--", "/bin/sleep", "0.03")
		case s.client:
			p.configure(s.daemon)
			stop := p.untraced()
			samples = p.commands("run", "--", "/bin/sleep", "0.03")
			stop()
		default:
			p.configure(s.daemon)
			samples = p.throughDaemon(s.ready)
		}
		all = append(all, least(s.name, samples)...)
	}
	return all
}

// least makes rows of the least of each number.
func least(scenario string, samples []counts) []row {
	byRole := map[string]*row{}
	for _, c := range samples {
		for role, n := range c {
			r := row{Scenario: scenario, Host: hostKind(), Process: role, Calls: n.own(role), Faults: n.Faults, Threads: n.Threads, Starts: n.Starts, Execs: n.Execs, Names: n.calls}
			if before := byRole[role]; before != nil {
				r = r.narrower(*before)
			}
			byRole[role] = &r
		}
	}
	var rows []row
	for _, role := range slices.Sorted(maps.Keys(byRole)) {
		rows = append(rows, *byRole[role])
	}
	return rows
}

// place is where one scenario runs.
type place struct {
	*testing.T
	bin, dir string
}

func (p *place) state() string   { return filepath.Join(p.dir, "state") }
func (p *place) address() string { return filepath.Join(p.dir, "socket") }
func (p *place) config() string  { return filepath.Join(p.dir, "config.toml") }

func (p *place) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "CAPSULE_STATE=" + p.state(), "XDG_STATE_HOME=" + filepath.Join(p.dir, "xdg")}
}

func (p *place) configure(text string) {
	p.Helper()
	if err := os.WriteFile(p.config(), []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
}

// commands traces capsulectl with these arguments.
func (p *place) commands(args ...string) []counts {
	p.Helper()
	env := p.environment()
	if _, err := os.Stat(p.address()); err == nil {
		env = append(env, "CAPSULE_ADDRESS="+p.address())
	}
	var samples []counts
	for i := range warmUps + times(repeats) {
		said := p.create("said")
		t, err := trace(append([]string{filepath.Join(p.bin, "capsulectl")}, args...), env, p.descriptors(said), false)
		if err != nil {
			p.Fatal(err)
		}
		<-t.done
		text, _ := os.ReadFile(said.Name()) // for the message alone
		said.Close()
		if t.err != nil || t.status.ExitStatus() != 0 {
			p.Fatalf("capsulectl %v: %#x, %v: %s", args, t.status, t.err, text)
		}
		if i >= warmUps {
			samples = append(samples, t.snapshot())
		}
	}
	return samples
}

func (p *place) create(name string) *os.File {
	p.Helper()
	f, err := os.Create(filepath.Join(p.dir, name))
	if err != nil {
		p.Fatal(err)
	}
	return f
}

// descriptors are an empty stdin and a file for the rest.
func (p *place) descriptors(out *os.File) []uintptr {
	p.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { null.Close() })
	return []uintptr{null.Fd(), out.Fd(), out.Fd()}
}

func (p *place) daemonArguments() []string {
	return []string{filepath.Join(p.bin, "capsuled"), "--config", p.config(), "--state", p.state(), "--address", p.address(), "--log-level", "warn",
		// Looks for what dead shims left are by the clock.
		"--sweep-interval", "1h"}
}

// untraced starts a daemon and returns what stops it.
func (p *place) untraced() func() {
	p.Helper()
	argv := p.daemonArguments()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = p.environment()
	log := p.create("log")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	p.dial().Close()
	return func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			text, _ := os.ReadFile(log.Name()) // for the message alone
			p.Errorf("capsuled: %v: %s", err, text)
		}
		log.Close()
	}
}

// throughDaemon traces a daemon and divides what a batch of executions costs.
func (p *place) throughDaemon(ready bool) []counts {
	p.Helper()
	log := p.create("log")
	defer log.Close()
	t, err := trace(p.daemonArguments(), p.environment(), p.descriptors(log), ready)
	if err != nil {
		p.Fatal(err)
	}
	c := p.dial()
	once := p.batch
	if ready {
		once = p.batchOfReady
	} else {
		p.executions(c, warmUps)
	}
	var samples []counts
	for range times(repeats) {
		samples = append(samples, once(t, c, times(batch)).divided(times(batch)))
	}
	c.Close()
	if err := syscall.Kill(t.root, syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
	<-t.done
	if t.err != nil || t.status.ExitStatus() != 0 {
		text, _ := os.ReadFile(log.Name()) // for the message alone
		p.Fatalf("capsuled: %#x, %v: %s", t.status, t.err, text)
	}
	return samples
}

// batch counts n executions with all that a daemon does for them.
func (p *place) batch(t *tracer, c *client.Client, n int) counts {
	p.Helper()
	if err := t.idle(1); err != nil {
		p.Fatal(err)
	}
	before := t.snapshot()
	p.executions(c, n)
	if err := t.idle(1); err != nil {
		p.Fatal(err)
	}
	return t.snapshot().since(before)
}

// misses is how often a batch may begin again: between the last system call that
// tells a daemon of a sandbox and what it notes then, a request may come and miss it.
const misses = 20

// batchOfReady counts n executions in sandboxes that were ready. The daemon's share
// has what it does to have the next one prepared; what that one does itself is left out.
func (p *place) batchOfReady(t *tracer, c *client.Client, n int) counts {
	p.Helper()
	for range misses {
		if sum := p.hits(t, c, n); sum != nil {
			return sum
		}
	}
	p.Fatalf("in %d batches an execution met no sandbox that was ready", misses)
	return nil
}

// hits is nil when one of n executions met no sandbox that was ready.
func (p *place) hits(t *tracer, c *client.Client, n int) counts {
	p.Helper()
	wait := func() {
		if err := t.pool(); err != nil {
			p.Fatal(err)
		}
	}
	wait()
	first, sum := t.snapshot(), counts{}
	for range n {
		t.take()
		before := t.snapshot()
		// "release" is the phase of a sandbox that was ready and fitted.
		if _, hit := p.executions(c, 1)[0].Metrics.StartupPhases["release"]; !hit {
			t.missed()
			return nil
		}
		wait()
		sum.add(t.snapshot().since(before))
	}
	// The daemon collects an execution while it prepares for the next one, or later.
	sum["capsuled"] = t.snapshot().since(first)["capsuled"]
	maps.DeleteFunc(sum, func(role string, _ *count) bool { return isAhead(role) })
	return sum
}

// dial waits until the daemon serves.
func (p *place) dial() *client.Client {
	p.Helper()
	deadline := time.Now().Add(time.Minute * time.Duration(slow()))
	for {
		c, err := client.Dial(p.Context(), p.address())
		if err == nil {
			return c
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(p.dir, "log")) // for the message alone
			p.Fatalf("capsuled does not answer: %v: %s", err, text)
		}
		time.Sleep(10 * time.Millisecond) // until it has made its socket
	}
}

func (p *place) executions(c *client.Client, n int) (responses []*spec.Response) {
	p.Helper()
	r := spec.Default()
	r.Command = []string{"/bin/sleep", "0.03"} // so long that others find its shim, which a quicker one spares itself
	r.TimeoutMS = (10 * time.Minute).Milliseconds()
	request := r.Encode()
	for range n {
		response, err := c.Run(context.Background(), &api.StartRequest{Request: request})
		if err == nil && (response.Status != spec.StatusSuccess || response.ExitCode == nil || *response.ExitCode != 0) {
			err = fmt.Errorf("%s", response.Encode(true))
		}
		if err != nil {
			p.Fatal(err)
		}
		responses = append(responses, response)
	}
	return responses
}

// measureAsNobody runs this test as a user that has nothing and reads its rows.
func measureAsNobody(t *testing.T) []row {
	t.Helper()
	const nobody = 65534
	dir := directory(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// The checkout may be out of that user's reach.
	for _, name := range programs {
		copyFile(t, filepath.Join(binaries(t), name), filepath.Join(bin, name))
	}
	copyFile(t, "/proc/self/exe", filepath.Join(dir, "budget.test"))
	rows := filepath.Join(dir, "rows")
	cmd := exec.Command("./budget.test", "-test.run=^TestBudget$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "CAPSULE_BIN=" + bin, measuringFor + "=" + rows}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	text, err := os.ReadFile(rows)
	if err != nil {
		t.Fatal(err)
	}
	return parseRows(t, text)
}

// programs are what an execution needs.
var programs = []string{"capsulectl", "capsuled", "capsule-shim", "capsule-seccomp"}

// binaries is the directory of the programs, as `make build` makes them: built
// in another way they would do other work.
func binaries(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CAPSULE_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range programs {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Fatalf("%v: run make build, or set CAPSULE_BIN", err)
		}
	}
	return dir
}

// directory is a short path, as sockets have short addresses, that everybody
// may search, and on which nobody else is.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "capsule-budget-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// slow is the factor by which this machine is slower than an ordinary one.
func slow() int {
	for _, name := range []string{"CAPSULE_TEST_SCALE", "CAPSULE_TEST_SLOW"} {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
			return n
		}
	}
	return 1
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
