package server

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
)

func (c *connection) events(ctx context.Context, s ttrpc.StreamServer) error {
	var r supervisorv1.EventsRequest
	if err := s.RecvMsg(&r); err != nil {
		return fault.Wrap(fault.InvalidValue, "decode the request", err)
	}
	c.following(1)
	defer c.following(-1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	window := newCredit()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for {
			var r supervisorv1.EventsRequest
			err := s.RecvMsg(&r)
			if err == nil {
				err = window.grant(r.Acknowledged)
			}
			if errors.Is(err, io.EOF) {
				err = errCallerLeft
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	err := c.supervisor().Events(ctx, r.After, !r.NoFollow, func(e api.Event) error {
		if err := window.take(ctx); err != nil {
			return err
		}
		return s.SendMsg(fromEvent(&e))
	})
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCallerLeft):
		return nil
	case cause != nil:
		return cause
	case err != nil:
		return err
	}
	awaitAcknowledgements(window, closed)
	return nil
}

// awaitAcknowledgements waits until at most half a window is not acknowledged,
// which is when a caller need not acknowledge: ttrpc would complain to it of an
// acknowledgement that comes after the end.
func awaitAcknowledgements(window credit, closed <-chan struct{}) {
	late := time.NewTimer(closeGrace)
	defer late.Stop()
	for n := 0; n <= ackEvery; n++ {
		select {
		case <-window:
		case <-closed:
			return
		case <-late.C:
			return
		}
	}
}
