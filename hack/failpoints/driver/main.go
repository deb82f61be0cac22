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

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

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
	s, err := supervisor.NewDaemon(supervisor.DaemonOptions{Options: supervisor.Options{StateDir: state, ShimPath: shim}})
	if err != nil {
		return err
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
