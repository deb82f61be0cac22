package client

import (
	"bytes"
	"context"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// split takes stdin out of a request that is too large for a message. One that
// is small, or not to be split, is returned as it is, with no stdin.
func split(r *api.StartRequest) (*api.StartRequest, []byte, error) {
	if len(r.Request) <= wire.MaxRequest {
		return r, nil, nil
	}
	rest, value, ok := cutStdin(r.Request)
	if !ok || r.StreamStdin || len(rest) > wire.MaxRequest {
		// It may well be wrong, of which its author can be told more than its size.
		if _, err := spec.DecodeRequest(r.Request); err != nil {
			return nil, nil, err
		}
		return nil, nil, tooLarge(len(rest))
	}
	only, err := spec.DecodeRequest(append(append([]byte(`{"command":["-"],"stdin":`), value...), '}'))
	if err != nil {
		return nil, nil, err
	}
	if only.Stdin == nil {
		return nil, nil, tooLarge(len(r.Request))
	}
	without := *r
	without.Request = rest
	without.StreamStdin = true
	return &without, *only.Stdin, nil
}

func sizeMessage(n int) string {
	return "the request has " + strconv.Itoa(n) + " bytes without stdin, and may have " + strconv.Itoa(wire.MaxRequest)
}

// cutStdin copies the object doc without its key stdin, whose value it returns.
// It is not ok when doc is no object or has no such key, or two.
func cutStdin(doc []byte) (rest []byte, value jsontext.Value, ok bool) {
	d := jsontext.NewDecoder(bytes.NewBuffer(doc), jsontext.AllowDuplicateNames(true))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return doc, nil, false
	}
	rest = append(rest, '{')
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return doc, nil, false
		}
		name = name.Clone()
		v, err := d.ReadValue()
		if err != nil {
			return doc, nil, false
		}
		if string(name) == `"stdin"` {
			if value != nil {
				return doc, nil, false
			}
			value = v.Clone()
			continue
		}
		if len(rest) > 1 {
			rest = append(rest, ',')
		}
		rest = append(append(append(rest, name...), ':'), v...)
	}
	if _, err := d.ReadToken(); err != nil || len(bytes.TrimSpace(doc[d.InputOffset():])) > 0 {
		return doc, nil, false
	}
	return append(rest, '}'), value, value != nil
}

// feed is stdin on its way.
type feed struct {
	taken chan struct{} // closed when the supervisor has taken it all
	over  chan struct{} // closed when nothing more is sent
}

// feed sends stdin to an execution that has just started.
func (c *Client) feed(id string, stdin []byte) {
	f := &feed{taken: make(chan struct{}), over: make(chan struct{})}
	c.mu.Lock()
	c.feeds[f] = struct{}{}
	c.mu.Unlock()
	go func() {
		defer func() {
			c.mu.Lock()
			delete(c.feeds, f)
			c.mu.Unlock()
			close(f.over)
		}()
		// It ends with the execution or the connection. That a command did not
		// read its stdin is no error, and a lost connection every call tells.
		_ = c.attach(context.Background(), id, &api.AttachOptions{Stdin: bytes.NewReader(stdin)}, f.taken)
	}()
}

// Flush waits until stdin that was too large for its request has been taken by
// the supervisor, or is not wanted any more. Call it before Close when nobody
// waits for the executions. E3007 when ctx is done before.
func (c *Client) Flush(ctx context.Context) error {
	c.mu.Lock()
	feeds := make([]*feed, 0, len(c.feeds))
	for f := range c.feeds {
		feeds = append(feeds, f)
	}
	c.mu.Unlock()
	for _, f := range feeds {
		select {
		case <-f.taken:
		case <-f.over:
		case <-ctx.Done():
			return fault.Wrap(fault.Cancelled, "pass on stdin", ctx.Err())
		}
	}
	return nil
}
