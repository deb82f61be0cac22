package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// reporter tells the caller the outcome, exactly once: as one JSON document on
// stdout in JSON mode, else as lines on stderr. Each method returns the exit
// status.
type reporter struct {
	console *console
	inv     *invocation
	created time.Time
	// request is nil until it is known to be valid.
	request *spec.Request
	// caller is the last signal that capsulectl got, zero for none.
	caller syscall.Signal
	// broken is why a live stream of the payload could not be written, nil for none.
	broken error

	once sync.Once
}

// respond reports the response of an execution.
func (r *reporter) respond(response *spec.Response) int {
	code := spec.ExitStatus(response, r.caller)
	if r.inv.jsonOutput {
		code = r.document(response.Encode(r.inv.pretty), code)
		if note := truncationNote(response); note != "" && !r.inv.jsonInput && !r.inv.quiet {
			r.line(note)
		}
	} else if r.broken != nil {
		code = r.brokenStream()
	} else if !r.inv.quiet || response.Status == spec.StatusError {
		r.lines(verdictLines(response, r.request, r.inv.settings, r.caller))
	}
	if r.inv.verbose {
		r.lines(verboseLines(response, r.request))
	}
	return code
}

// refuse reports that nothing was run, or that what should run could not start.
func (r *reporter) refuse(err error) int {
	code := exitCodeOf(err)
	if f := fault.From(err, fault.IO); f.Code == fault.Cancelled && r.caller != 0 {
		code = spec.ExitSignalBase + int(r.caller)
	}
	if r.inv.jsonOutput && r.inv.template == nil {
		return r.document(r.refused(err), code)
	}
	r.lines(faultLines(nameFlags(err, r.inv.settings)))
	return code
}

// planDocument is a launch plan as a document.
type planDocument struct {
	Plan string `json:"plan"`
}

// plan reports the result of a dry run.
func (r *reporter) plan(text string, err error) int {
	if err != nil {
		return r.refuse(err)
	}
	if !r.inv.jsonOutput {
		return r.console.print(text)
	}
	document, err := json.Marshal(planDocument{text})
	if err != nil {
		return r.refuse(err)
	}
	return r.document(document, 0)
}

// abandon reports that a signal ended capsulectl before there was a verdict.
func (r *reporter) abandon(s syscall.Signal) int {
	if r.inv.jsonOutput && r.inv.template == nil {
		err := fault.New(fault.Cancelled, "", "capsulectl was ended by "+signalName(s))
		r.document(r.refused(err), 0)
	}
	return spec.ExitSignalBase + int(s)
}

// crashed reports a panic, which is a defect of capsule.
func (r *reporter) crashed(p any) int {
	r.line(fmt.Sprintf("internal error: %v\n%s", p, debug.Stack()))
	if r.inv.jsonOutput && r.inv.template == nil {
		err := fault.New(fault.SystemCall, "internal error", fmt.Sprint(p)).
			WithHint("This is a defect of capsule; please report it with the trace on stderr.")
		return r.document(r.refused(err), spec.ExitRefused)
	}
	return spec.ExitRefused
}

// refused is the document for an execution that never was. Every response has an
// id, so one is made when the caller gave none.
func (r *reporter) refused(err error) []byte {
	id := r.inv.id
	if id == "" {
		id = newUUID()
	}
	return spec.Refused(id, err, r.created).Encode(r.inv.pretty)
}

// document prints the one JSON document. Without a reader the outcome cannot be
// delivered: that is capsule's failure and not the payload's status.
func (r *reporter) document(data []byte, code int) int {
	var err error
	r.once.Do(func() { err = r.inv.show(r.console.stdout, data) })
	var wrong *fault.Fault
	switch {
	case errors.As(err, &wrong):
		r.lines(faultLines(wrong))
		return spec.ExitRefused
	case err == nil && r.inv.envelope:
		return 0
	case err == nil:
		return code
	case !isBrokenPipe(err):
		r.lines(faultLines(fault.Wrap(fault.IO, "write the response to stdout", err)))
	}
	return spec.ExitRefused
}

// brokenStream is the end of an execution whose live output could not be
// delivered: silently as by SIGPIPE when the reader has gone, else an E6001.
func (r *reporter) brokenStream() int {
	if isBrokenPipe(r.broken) {
		return spec.ExitSignalBase + int(syscall.SIGPIPE)
	}
	var errno syscall.Errno
	if errors.As(r.broken, &errno) {
		r.lines(faultLines(fault.Wrap(fault.IO, "pass the output on", errno)))
	} else {
		r.lines(faultLines(r.broken))
	}
	return spec.ExitRefused
}

func (r *reporter) line(s string) { r.lines([]string{s}) }

// lines prints to stderr with the program's name in front, in one write so that
// they stay together. There is nowhere left to report an error to.
func (r *reporter) lines(lines []string) { _ = r.console.diagnose(lines) }

func (c *console) diagnose(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("capsule: " + diagnostic(l) + "\n")
	}
	_, err := io.WriteString(c.stderr, b.String())
	return err
}

// print writes a result to stdout; it returns 0, or 125 when that fails.
func (c *console) print(text string) int {
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if _, err := io.WriteString(c.stdout, text); err != nil {
		return c.unwritten(err)
	}
	return 0
}

// unwritten tells that a result could not be written to stdout, silently when its reader
// has gone. It returns the exit status.
func (c *console) unwritten(err error) int {
	if !isBrokenPipe(err) {
		_ = c.diagnose(faultLines(fault.Wrap(fault.IO, "write to stdout", err)))
	}
	return spec.ExitRefused
}

// fail reports an error of a verb other than run.
func (c *console) fail(err error) int {
	_ = c.diagnose(faultLines(err))
	return exitCodeOf(err)
}
