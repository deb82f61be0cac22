package seccomp

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/spec/fault"
)

// compileTimeout bounds one compilation; a large profile takes 20 ms. The
// object may come from a caller, and the library's effort grows with it.
const compileTimeout = time.Minute

// compile runs the helper on an object. The helper gets no environment and
// dies with the thread that started it.
func (c *Cache) compile(ctx context.Context, verb string, object []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, compileTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Helper, verb)
	stdout := &bounded{limit: bpf.MaxInstructions * bpf.InstructionSize}
	stderr := &bounded{limit: 4096}
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(object), stdout, stderr
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The parent-death signal follows the thread, so it must outlive the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return nil, c.failure(ctx, err, stderr.data.String())
	}
	program := stdout.data.Bytes()
	if !plausible(len(program)) {
		return nil, fault.New(fault.Seccomp, "compile system call filter", "the filter compiler gave no program").WithPath(c.Helper)
	}
	return program, nil
}

// failure makes a fault of what the helper said: one line, "CODE message".
func (c *Cache) failure(ctx context.Context, err error, said string) error {
	if ctx.Err() != nil {
		return fault.Wrap(fault.Seccomp, "compile system call filter", context.Cause(ctx)).WithPath(c.Helper)
	}
	line, _, _ := strings.Cut(said, "\n")
	code, message, found := strings.Cut(line, " ")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !found || fault.Code(code).Info().Meaning == "" {
		return fault.Wrap(fault.Seccomp, "run the filter compiler", err).WithPath(c.Helper).
			WithHint("Install capsule-seccomp beside capsule-shim.")
	}
	if exit.ExitCode() == ExitNoLibrary {
		return fault.Wrap(fault.Seccomp, "compile system call filter", ErrNoLibrary).
			WithHint("Install a capsule-seccomp that is built with libseccomp (cgo, without the tag noseccomp), or name seccomp in isolation.allow_degraded to run without a filter.")
	}
	f := fault.New(fault.Code(code), "", message)
	if field, _, ok := strings.Cut(message, ": "); ok && strings.HasPrefix(field, "linux.seccomp") {
		f.Field = field
		f.Err = errors.New(message[len(field)+2:])
		return f.WithHint("Correct the named field of the OCI linux.seccomp object.")
	}
	return f.WithHint("Install a capsule-seccomp that is built with libseccomp (cgo, without the tag noseccomp).")
}

// bounded keeps the first bytes of a stream; more of them are an error, which
// ends the copying and with it the helper.
type bounded struct {
	data  bytes.Buffer
	limit int
}

// Write appends p, or refuses it when the stream grows past the limit.
func (b *bounded) Write(p []byte) (int, error) {
	if b.data.Len()+len(p) > b.limit {
		return 0, errors.New("the filter compiler wrote too much")
	}
	return b.data.Write(p)
}
