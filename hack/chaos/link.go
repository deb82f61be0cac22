package main

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// dialTime bounds one attempt to connect.
const dialTime = 5 * time.Second

// link is a client that connects again when its connection is lost.
type link struct {
	address string
	c       *client.Client
	lost    int
}

// do calls f with a connection until it is not the connection that fails.
func (l *link) do(ctx context.Context, f func(*client.Client) error) error {
	for {
		err := l.connect(ctx)
		if err == nil {
			err = f(l.c)
		}
		if err == nil || !isFault(err, fault.Unreachable) || ctx.Err() != nil {
			return err
		}
		l.close()
		select {
		case <-time.After(pollPause):
		case <-ctx.Done():
			return err
		}
	}
}

func (l *link) connect(ctx context.Context) (err error) {
	if l.c != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	l.c, err = client.Dial(ctx, l.address)
	return err
}

// close ends the connection; the next use makes another.
func (l *link) close() {
	if l.c != nil {
		_ = l.c.Close() // it is lost, or of no more use
		l.c = nil
		l.lost++
	}
}

func isFault(err error, code fault.Code) bool {
	return errors.Is(err, &fault.Fault{Code: code})
}

// start is Start that also waits for a place in a full queue.
func (l *link) start(ctx context.Context, p *plan) error {
	for {
		err := l.do(ctx, func(c *client.Client) error {
			_, err := c.Start(ctx, &api.StartRequest{ID: p.id, Request: p.request, KillOnDisconnect: p.owned})
			return err
		})
		if !isFault(err, fault.TooManyExecutions) {
			return err
		}
		select {
		case <-time.After(10 * pollPause):
		case <-ctx.Done():
			return err
		}
	}
}

// watch follows the output of an execution over any number of connections.
func (l *link) watch(ctx context.Context, id string) (stdout []byte, missed int64, err error) {
	var out bytes.Buffer
	err = l.do(ctx, func(c *client.Client) error {
		return c.Attach(ctx, id, &api.AttachOptions{Stdout: &out, StdoutOffset: int64(out.Len()) + missed, Hold: true,
			Missed: func(_ string, n int64) { missed += n }})
	})
	return out.Bytes(), missed, err
}
