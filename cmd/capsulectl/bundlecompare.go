package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/shim/inside"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
)

// difference is an element of what bundle diff gives.
type difference struct {
	Pointer string `json:"pointer"`
	A       any    `json:"a"`
	B       any    `json:"b"`
}

func (c *console) diffBundles(ctx *cli.Context, k *bundleCall) (int, error) {
	dirs, err := k.directories(2, "give the directories of two bundles")
	if err != nil {
		return 0, err
	}
	b, _, err := c.bundler()
	if err != nil {
		return 0, err
	}
	document, err := b.DiffBundles(ctx.Context, dirs[0], dirs[1])
	if err != nil {
		return 0, err
	}
	var list []difference
	if err := json.Unmarshal(document, &list); err != nil {
		return 0, fault.Wrap(fault.StateUnreadable, "read differences", err)
	}
	var text strings.Builder
	for _, d := range list {
		text.WriteString(d.Pointer + "\n")
		for mark, v := range []any{d.A, d.B} {
			if v != nil {
				text.WriteString("  " + "-+"[mark:mark+1] + " " + brief(jsonText(v), 300) + "\n")
			}
		}
	}
	human := text.String()
	if len(list) == 0 {
		human = "they mean the same"
	}
	code, err := c.present(&k.format, list, human)
	return max(code, min(len(list), 1)), err
}

func jsonText(v any) string {
	data, err := json.Marshal(v)
	if err != nil { // it came out of JSON
		return err.Error()
	}
	return string(data)
}

// comparison is what bundle compare found.
type comparison struct {
	Bundle  string `json:"bundle"`
	Runtime string `json:"runtime"`
	// Same: nothing differs but what capsule does more strictly.
	Same        bool                `json:"same"`
	Differences []inside.Difference `json:"differences"`
}

// compareTime bounds a run under another runtime, which keeps no deadline.
const compareTime = 60 * time.Second

func (c *console) compareBundle(ctx *cli.Context, k *bundleCall) (int, error) {
	const form = "give the directory of a bundle and a runtime: bundle compare DIR --with runc"
	dirs, err := k.directories(1, form)
	if err != nil {
		return 0, err
	}
	name := k.with
	if name == "" {
		return 0, usage("bundle compare", form)
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return 0, fault.New(fault.Unsupported, "find runtime", name+" is not installed").WithHint("Install it, or name another with --with.")
	}
	b, inv, err := c.bundler()
	if err != nil {
		return 0, err
	}
	base, err := inv.base()
	if err != nil {
		return 0, err
	}
	done := c.progress("running " + dirs[0] + " here and under " + name)
	found, err := compareWith(ctx.Context, b, base, dirs[0], program)
	done()
	if err != nil {
		return 0, err
	}
	code, err := c.present(&k.format, found, found.text())
	if err == nil && !found.Same {
		code = max(code, 1)
	}
	return code, err
}

// compareWith runs the bundle twice under each runtime: as it is, and with a
// command that looks around.
func compareWith(ctx context.Context, b bundler, base *spec.Request, dir, program string) (k *comparison, err error) {
	probe, err := temporary()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(probe)) }()
	masked, err := b.ProbeBundle(ctx, dir, probe)
	if err != nil {
		return nil, err
	}
	k = &comparison{Bundle: dir, Runtime: program, Differences: []inside.Difference{}}
	ours, err := runHere(ctx, b, base, dir)
	if err != nil {
		return nil, err
	}
	theirs, err := runThere(ctx, program, dir)
	if err != nil {
		return nil, err
	}
	for _, pair := range [][3]string{{"exit", ours.exit, theirs.exit}, {"stdout", ours.stdout, theirs.stdout}, {"stderr", ours.stderr, theirs.stderr}} {
		if pair[1] != pair[2] {
			k.Differences = append(k.Differences, inside.Difference{What: "command", Key: pair[0], Capsule: pair[1], Other: pair[2]})
		}
	}
	if ours, err = runHere(ctx, b, base, probe); err != nil {
		return nil, err
	}
	if theirs, err = runThere(ctx, program, probe); err != nil {
		return nil, err
	}
	var views [2]inside.View
	for i, r := range []*trialRun{ours, theirs} {
		if err := json.Unmarshal([]byte(r.stdout), &views[i]); err != nil {
			return nil, fault.New(fault.Unsupported, "look into the sandbox of "+[]string{"capsule", filepath.Base(program)}[i],
				"exit "+r.exit+": "+brief(strings.TrimSpace(r.stderr), 300)).
				WithHint("Run the bundle there by itself to see more.")
		}
	}
	k.Differences = append(k.Differences, inside.Compare(&views[0], &views[1], masked)...)
	k.Same = true
	for _, d := range k.Differences {
		k.Same = k.Same && d.Stricter
	}
	return k, nil
}

// trialRun is how a command ended.
type trialRun struct{ exit, stdout, stderr string }

func runHere(ctx context.Context, b bundler, base *spec.Request, dir string) (*trialRun, error) {
	request := *base
	request.Command = []string{dir}
	x, _, err := b.StartBundle(ctx, dir, &request, "", supervisor.Streams{})
	if err != nil {
		return nil, err
	}
	r := x.Wait()
	if r.Status == spec.StatusError {
		f := fault.New(fault.Code(r.Error.Code), "run it under capsule", r.Error.Message).WithHint(r.Error.Hint)
		f.Field, _ = r.Error.Details["field"].(string)
		return nil, f
	}
	stdout, err1 := r.StdoutBytes()
	stderr, err2 := r.StderrBytes()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fault.Wrap(fault.StateUnreadable, "read output", err)
	}
	return &trialRun{fmt.Sprint(spec.ExitStatus(r, 0)), string(stdout), string(stderr)}, nil
}

// runThere runs a bundle under another runtime, with a state directory of its own,
// and leaves nothing of it.
func runThere(ctx context.Context, program, dir string) (r *trialRun, err error) {
	state, err := temporary()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	id := "capsule-compare-" + newUUID()
	limited, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(limited, program, "--root", state, "run", "--bundle", dir, id)
	// Pipes all three: a runtime gives the streams that it is handed to the user of the
	// bundle, and a nil Stdin would be the host's /dev/null.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = new(bytes.Buffer), &out, &errs
	// What holds the pipes after the runtime is dead is killed by delete.
	cmd.WaitDelay = 5 * time.Second
	cmd.Cancel = func() error {
		_ = exec.CommandContext(ctx, program, "--root", state, "kill", id, "KILL").Run() // it may have ended
		return cmd.Process.Kill()
	}
	runErr := start(cmd, filepath.Base(program) == "crun")
	if runErr == nil {
		runErr = cmd.Wait()
	}
	_ = exec.CommandContext(ctx, program, "--root", state, "delete", "--force", id).Run() // run has deleted what ended well
	var exit *exec.ExitError
	switch {
	case limited.Err() != nil:
		return nil, fault.New(fault.Timeout, "run it under "+filepath.Base(program), "not done after "+compareTime.String())
	case runErr != nil && !errors.As(runErr, &exit):
		return nil, fault.Wrap(fault.IO, "start "+program, runErr)
	}
	return &trialRun{fmt.Sprint(cmd.ProcessState.ExitCode()), out.String(), errs.String()}, nil
}

func (k *comparison) text() string {
	var b strings.Builder
	name := filepath.Base(k.Runtime)
	for _, stricter := range []bool{false, true} {
		for _, d := range k.Differences {
			if d.Stricter != stricter {
				continue
			}
			b.WriteString(d.What + ": " + d.Key)
			if stricter {
				b.WriteString(" (capsule is stricter)")
			}
			b.WriteString("\n  capsule: " + brief(jsonText(d.Capsule), 1000) + "\n  " + name + ": " + brief(jsonText(d.Other), 1000) + "\n")
		}
	}
	if k.Same {
		b.WriteString("the same under capsule and " + name + "\n")
	} else {
		b.WriteString("it differs under capsule and " + name + "\n")
	}
	return b.String()
}
