// Driver is a daemon that runs one execution, for tests that kill it on the way:
//
//	driver STATE SHIM ID COMMAND...
//
// or one that compacts a history of which most was removed:
//
//	driver compact FILE
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// Pool is the variable that lets the execution find a prepared sandbox, or one whose
// shim has died.
const Pool = "CAPSULE_DRIVER_POOL"

// compact compacts the history in a file, which must be worth it.
func compact(file string) error {
	h, err := history.Open(file, history.Options{})
	if err != nil {
		return err
	}
	switch done, err := h.Compact(); {
	case err != nil:
		return err
	case done == nil:
		return errors.New("there was nothing to compact")
	}
	return h.Close()
}

func main() {
	if os.Args[1] == "compact" {
		if err := compact(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(state, shim, id string, command []string) error {
	o := supervisor.DaemonOptions{Options: supervisor.Options{StateDir: state, ShimPath: shim}}
	if os.Getenv(Pool) != "" {
		o.Pool = supervisor.PoolLimits{Size: 1, Idle: time.Hour}
	}
	s, err := supervisor.NewDaemon(o)
	if err != nil {
		return err
	}
	for o.Pool.Size > 0 {
		if p := s.PoolStats(); p.Ready+int(p.Failed) > 0 {
			break
		}
		time.Sleep(time.Millisecond) // what is prepared sends no event
	}
	if _, err := s.RecoverAll(context.Background()); err != nil {
		return err
	}
	req := spec.Default()
	req.Command = command
	ctx := context.Background()
	me := s.As(uint32(os.Geteuid()))
	if _, err := me.Start(ctx, &api.StartRequest{ID: id, Request: req.Encode()}); err != nil {
		return err
	}
	if _, err := me.Wait(ctx, id); err != nil {
		return err
	}
	if err := s.Drain(ctx); err != nil {
		return err
	}
	return s.Close()
}
