package container

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/spec/fault"
)

// hooks calls the hooks of one kind in their order and stops at the first that fails.
// Each gets the state on stdin, with the status that the specification names for it.
// inside calls them in the container's namespaces.
func (c *Container) hooks(kind string, list []specs.Hook, status specs.ContainerState, pid int, inside func(specs.Hook, []byte) error) error {
	if len(list) == 0 {
		return nil
	}
	state, err := specjson.NewWriter(512, false).State(&specs.State{Version: specs.Version, ID: c.ID, Status: status, Pid: pid, Bundle: c.Bundle,
		Annotations: c.Config.Annotations}).Bytes()
	if err != nil {
		return err
	}
	for i, h := range list {
		call := callHook
		if inside != nil {
			call = inside
		}
		if err := call(h, state); err != nil {
			f := fault.Wrap(fault.InvalidBundle, "hook "+kind, err).WithPath(h.Path).WithField("hooks." + kind + "[" + strconv.Itoa(i) + "]")
			return f.WithHint("The hook of the configuration failed; its own output says why.")
		}
	}
	return nil
}

// callHook runs a hook on the host. It inherits no descriptor but its three, and its
// environment is what the configuration says.
func callHook(h specs.Hook, state []byte) error {
	ctx, cancel := hookTime(h)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	var said bytes.Buffer
	cmd.Env = append([]string{}, h.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), &said, &said
	// A time-out ends what the hook has started too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // what a hook leaves behind may hold its output
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if ctx.Err() != nil {
		err = errTimeout
	}
	if err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			err = errors.New(err.Error() + ": " + text[:min(len(text), 2000)])
		}
	}
	return err
}

var errTimeout = errors.New("does not end within its timeout")

// hookTime bounds a hook. The plan refuses a time that is not greater than zero.
func hookTime(h specs.Hook) (context.Context, context.CancelFunc) {
	if h.Timeout != nil {
		const most = 1 << 30 // seconds; a time.Duration ends at nine times that
		return context.WithTimeout(context.Background(), time.Duration(min(*h.Timeout, most))*time.Second)
	}
	return context.WithCancel(context.Background())
}

// hooksOf never is nil.
func hooksOf(s *specs.Spec) *specs.Hooks {
	if s.Hooks == nil {
		return &specs.Hooks{}
	}
	return s.Hooks
}
