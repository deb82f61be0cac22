package shim

import (
	"github.com/capsule-run/capsule/shim/shimapi"

	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// openStdio makes the three streams of the payload.
func (e *execution) openStdio(t *translation, streamStdin bool) error {
	e.stdio.payload = [3]int{-1, -1, -1}
	if err := e.openStdin(t, streamStdin); err != nil {
		return err
	}
	for i := range 2 {
		r, w, err := output.Pipe()
		if err != nil {
			return err
		}
		e.stdio.payload[i+1] = w
		t.own(w)
		if err := e.capture(i, r); err != nil {
			return err
		}
	}
	return nil
}

// capture takes over the read end of stdout (0) or stderr (1).
func (e *execution) capture(i int, r int) error {
	limit, policy := e.req.Resources.MaxOutputBytes, e.req.Resources.OutputPolicy
	if breach.Of("output_limit") {
		limit = spec.Default().Resources.MaxOutputBytes
	}
	s, err := output.New(r, output.Config{Name: [...]string{"stdout", "stderr"}[i], Dir: shimapi.LockFD, Limit: limit, Policy: policy, OnLimit: e.onOutputLimit})
	if err != nil {
		return err
	}
	if i == 0 {
		e.stdio.stdout = s
		e.hold(i, s, e.boot.HoldStdout)
	} else {
		e.stdio.stderr = s
		e.hold(i, s, e.boot.HoldStderr)
	}
	return nil
}

// heldMost is how long the output of an execution that outlives its caller is held for
// somebody who follows it.
const heldMost = 10 * time.Second

// hold keeps all of a stream for the attachment that is to come.
func (e *execution) hold(i int, s *output.Stream, wanted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if wanted && !e.seen.cancelled { // else nobody may come to let it go
		e.held[i] = s.Subscribe(0)
		if !e.boot.Foreground {
			time.AfterFunc(heldMost, e.dropHeld)
		}
	}
}

// takeHeld gives what is held of a stream to an attachment that wants it; nil:
// nothing is.
func (e *execution) takeHeld(i int, wanted bool) *output.Subscription {
	if !wanted {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	sub := e.held[i]
	e.held[i] = nil
	return sub
}

// dropHeld lets the streams go on when nobody will come for them.
func (e *execution) dropHeld() {
	for i := range e.held {
		if sub := e.takeHeld(i, true); sub != nil {
			sub.Close()
		}
	}
}

// own gives a pipe that we made to the payload's user, so that it can open
// /dev/stdout and its like again. Never done to a descriptor of somebody else.
func (t *translation) own(fd int) {
	if t.ids[0] >= 0 {
		_ = unix.Fchown(fd, t.ids[0], t.ids[1]) // without it only re-opening fails
	}
}

// openStdin gives /dev/null, the request's bytes, or a pipe to be fed.
func (e *execution) openStdin(t *translation, stream bool) error {
	if e.req.Stdin == nil && !stream {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fault.Wrap(fault.IO, "open /dev/null", err)
		}
		e.stdio.payload[0] = fd
		return nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fault.Wrap(fault.IO, "make stdin pipe", err)
	}
	e.stdio.payload[0] = ends[0]
	t.own(ends[0])
	writer := os.NewFile(uintptr(ends[1]), "stdin")
	if stream {
		e.stdio.stdin = writer
		return nil
	}
	feed(writer, *e.req.Stdin)
	return nil
}

// closePayloadEnds closes what belongs to the payload once it has it.
func (s *stdio) closePayloadEnds() {
	for i, fd := range s.payload {
		if fd > 0 {
			unix.Close(fd)
		}
		s.payload[i] = -1
	}
}

// close ends the captures and gives up stdin. The captures keep their memory
// until the process ends: a caller that reads slowly still comes for the rest.
func (s *stdio) close() {
	s.closePayloadEnds()
	for _, stream := range []*output.Stream{s.stdout, s.stderr} {
		if stream != nil {
			stream.Finish()
		}
	}
	if s.stdin != nil {
		_ = s.stdin.Close() // nothing is buffered
	}
}
