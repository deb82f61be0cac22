package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// object is a JSON object under construction.
type object map[string]any

// capsule runs executions for one test and knows them all.
type capsule struct {
	*testing.T
	ids []string
	env []string // besides PATH and CAPSULE_STATE
}

// begin makes a test's capsule. When the test ends it must have left nothing.
func begin(t *testing.T) *capsule {
	t.Helper()
	if _, err := binaries(); err != nil {
		t.Fatal(err)
	}
	c := &capsule{T: t}
	t.Cleanup(func() { c.checkNothingLeft() })
	return c
}

// outcome is what one call of capsulectl gave.
type outcome struct {
	*spec.Response // nil unless the call was to print one
	code           int
	out, stderr    string
}

// command prepares a call of capsulectl run with an execution id of its own.
func (c *capsule) command(args ...string) *exec.Cmd {
	c.Helper()
	return c.program(append([]string{"run", "--execution-id", c.newID()}, args...)...)
}

// program prepares a call of capsulectl.
func (c *capsule) program(args ...string) *exec.Cmd {
	c.Helper()
	dir, err := binaries()
	if err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patient(6*time.Minute))
	c.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, dir+"/capsulectl", args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CAPSULE_STATE=" + stateDir()}, c.env...)
	cmd.WaitDelay = patient(10 * time.Second)
	return cmd
}

// newID makes a UUID that the check for leftovers knows.
func (c *capsule) newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	c.ids = append(c.ids, id)
	return id
}

// finish runs a prepared call to its end.
func (c *capsule) finish(cmd *exec.Cmd) outcome {
	c.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.Fatalf("%v: %v\n%s", cmd.Args, err, stderr.String())
	}
	return outcome{code: cmd.ProcessState.ExitCode(), out: stdout.String(), stderr: stderr.String()}
}

// run sends a request through --json. A request without timeout_ms gets one
// that fits the machine.
func (c *capsule) run(request object, args ...string) outcome {
	c.Helper()
	if _, ok := request["timeout_ms"]; !ok {
		request["timeout_ms"] = patient(30 * time.Second).Milliseconds()
	}
	document, err := json.Marshal(request)
	if err != nil {
		c.Fatal(err)
	}
	return c.runDocument(bytes.NewReader(document), args...)
}

// runInTime sends a request with a time-out, and with a longer one when the command
// had not come far enough: how soon it begins is the machine's affair.
func (c *capsule) runInTime(timeout time.Duration, request object, enough func(outcome) bool) outcome {
	c.Helper()
	for ; ; timeout *= 2 {
		request["timeout_ms"] = timeout.Milliseconds()
		if o := c.run(request); enough(o) || timeout > patient(5*time.Second) {
			return o
		}
	}
}

// said tells whether the command has printed anything.
func said(o outcome) bool { return o.text() != "" }

// runDocument sends a document through --json and reads the response.
func (c *capsule) runDocument(document io.Reader, args ...string) outcome {
	c.Helper()
	cmd := c.command(append(args, "--json")...)
	cmd.Stdin = document
	o := c.finish(cmd)
	o.Response = c.response(o)
	return o
}

// runFlags makes the request of flags and reads the response.
func (c *capsule) runFlags(args ...string) outcome {
	c.Helper()
	o := c.human(append([]string{"-o", "json"}, args...)...)
	o.Response = c.response(o)
	return o
}

// human makes the request of flags and prints no response.
func (c *capsule) human(args ...string) outcome {
	c.Helper()
	return c.finish(c.command(args...))
}

// response reads the one document on stdout and checks what holds for all.
func (c *capsule) response(o outcome) *spec.Response {
	c.Helper()
	d := json.NewDecoder(strings.NewReader(o.out))
	d.DisallowUnknownFields()
	var r spec.Response
	if err := d.Decode(&r); err != nil {
		c.Fatalf("stdout is no response: %v\nexit %d\nstdout: %.500s\nstderr: %.2000s", err, o.code, o.out, o.stderr)
	}
	if rest, err := d.Token(); err != io.EOF {
		c.Errorf("the response is followed by %v (%v)", rest, err)
	}
	if o.stderr != "" {
		c.Errorf("stderr: %s", o.stderr)
	}
	if !slices.Contains(c.ids, r.ExecutionID) {
		c.Errorf("the response is about execution %s", r.ExecutionID)
	}
	if r.ExitCode != nil && r.Signal != nil {
		c.Errorf("exit code %d and signal %d", *r.ExitCode, *r.Signal)
	}
	if (r.Status == spec.StatusSuccess) != (r.Error == nil) {
		c.Errorf("status %s and error %+v", r.Status, r.Error)
	}
	return &r
}

// want describes a verdict. Exit and signal below zero stand for null.
type want struct {
	status  spec.Status
	reason  spec.Reason
	fault   string // code of the error; empty: none
	exit    int
	signal  int
	program int // exit status of capsulectl
}

func exited(code int) want {
	return want{spec.StatusSuccess, spec.ReasonExited, "", code, -1, code}
}

// is checks the verdict.
func (o outcome) is(t testing.TB, w want) {
	t.Helper()
	have := want{o.Status, o.Termination.Reason, "", -1, -1, o.code}
	if o.Error != nil {
		have.fault = o.Error.Code
	}
	if o.ExitCode != nil {
		have.exit = *o.ExitCode
	}
	if o.Signal != nil {
		have.signal = *o.Signal
	}
	if have != w {
		t.Errorf("\nhave %+v\nwant %+v\nerror: %+v\nstdout: %.300q\nstderr: %.2000q", have, w, o.Error, o.text(), o.errors())
	}
}

// printed checks a successful execution and its output.
func (o outcome) printed(t testing.TB, stdout string) {
	t.Helper()
	o.is(t, exited(0))
	if o.text() != stdout {
		t.Errorf("\nstdout %.2000q\nwant   %.2000q\nstderr %.2000q", o.text(), stdout, o.errors())
	}
}

// text is the payload's stdout as the response has it.
func (o outcome) text() string {
	if o.Response == nil || o.Stdout == nil {
		return ""
	}
	return *o.Stdout
}

// errors is the payload's stderr as the response has it.
func (o outcome) errors() string {
	if o.Response == nil || o.Response.Stderr == nil {
		return ""
	}
	return *o.Response.Stderr
}

// sh is a command line for a shell.
func sh(script string, args ...string) []string { return append([]string{"sh", "-c", script}, args...) }

func python(program string) []string { return []string{"python3", "-c", program} }

// complaints is what capsulectl or the payload wrote to stderr, without the
// warnings that every run gives where there is no control group.
func (o outcome) complaints() string {
	var rest strings.Builder
	for line := range strings.Lines(o.stderr) {
		if !strings.HasPrefix(line, "capsule: warning: limit ") || os.Geteuid() == 0 || delegated() {
			rest.WriteString(line)
		}
	}
	return rest.String()
}
