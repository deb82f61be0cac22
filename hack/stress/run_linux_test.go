package stress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// patience bounds one call of capsulectl.
const patience = 60 * time.Second

// object is a JSON object under construction.
type object map[string]any

// serial makes execution ids of this process: recognisable and never the same.
var serial atomic.Int64

// newID is an execution id. All of this process share a prefix.
func newID() string { return fmt.Sprintf("%s-%012x", idPrefix(), serial.Add(1)) }

var idPrefix = sync.OnceValue(func() string {
	return fmt.Sprintf("%08x-57e5-4000-8000", rand.Uint32())
})

// command prepares `capsulectl run`, which is killed when it is not done in time.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient(patience))
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binaries(t)+"/capsulectl", append([]string{"run", "--execution-id", newID()}, args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "CAPSULE_STATE=" + state()}
	// Whoever inherits the pipes must not hold us for ever. On a loaded machine
	// a second is too short: what came later would be cut off without an error.
	cmd.WaitDelay = patient(patience)
	return cmd
}

// outcome is what a call gave.
type outcome struct {
	*spec.Response       // nil: it printed none
	undecoded      error // why it printed none
	code           int
	text, stderr   string
}

// String is for messages of tests.
func (o outcome) String() string {
	text := o.text
	if len(text) > 4000 {
		text = text[:2000] + " ... " + text[len(text)-2000:]
	}
	return fmt.Sprintf("exit status %d, decoded %v, stdout %s, stderr %s", o.code, o.undecoded, text, o.stderr)
}

// is tells whether the response has this status, reason and, if any, code.
func (o outcome) is(reason spec.Reason, code string) bool {
	if o.Response == nil || o.Termination.Reason != reason {
		return false
	}
	return (o.Error == nil && code == "") || (o.Error != nil && o.Error.Code == code)
}

// finish runs a prepared command to its end.
func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return result(t, cmd, err, stdout.String(), stderr.String())
}

func result(t *testing.T, cmd *exec.Cmd, err error, stdout, stderr string) outcome {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Errorf("%v: %v, stderr %s", cmd.Args, err, stderr)
	}
	o := outcome{code: cmd.ProcessState.ExitCode(), text: stdout, stderr: stderr}
	if r, err := spec.DecodeResponse([]byte(stdout)); err == nil {
		o.Response = r
	} else {
		o.undecoded = err
	}
	return o
}

// run runs a command line and decodes its response.
func run(t *testing.T, args ...string) outcome {
	t.Helper()
	return finish(t, command(t, append([]string{"--output", "json"}, args...)...))
}

// request runs an ExecutionRequest.
func request(t *testing.T, req object) outcome {
	t.Helper()
	data, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "--json")
	cmd.Stdin = bytes.NewReader(data)
	return finish(t, cmd)
}

// together calls f for 0..n-1, at most width at a time.
func together(n, width int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}
