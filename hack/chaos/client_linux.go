package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// order is what a client process is to do, JSON on its stdin.
type order struct {
	Address string `json:"address"`
	ID      string `json:"id"`
	Request []byte `json:"request"`
	Owned   bool   `json:"owned"`
}

// clientMain is a client process: it starts an execution and waits for it, over
// any number of daemons. It prints a line when the execution is started and one
// with the response.
func clientMain(ctx context.Context, _ []string, in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return err
	}
	l := &link{address: o.Address}
	defer l.close()
	var response *spec.Response
	told := false
	err := l.do(ctx, func(c *client.Client) error {
		// Start again on every connection: that makes this one the owner.
		_, err := c.Start(ctx, &api.StartRequest{ID: o.ID, Request: o.Request, KillOnDisconnect: o.Owned})
		if err != nil {
			return err
		}
		if !told {
			told = true
			fmt.Fprintln(out, "started")
		}
		if o.Owned {
			response, err = c.WaitOwned(ctx, o.ID)
		} else {
			response, err = c.Wait(ctx, o.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = out.Write(response.Encode(false)) // with the end of the line
	return err
}

// visitor is a client process.
type visitor struct {
	cmd  *exec.Cmd
	told [][]byte      // its lines; complete when done is closed
	done chan struct{} // closed at its end
	// spoke is closed at its first line, when its execution is started, or its end.
	spoke chan struct{}
}

// visit starts a client process for an execution.
func (h *harness) visit(p *plan) (*visitor, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	message, err := json.Marshal(order{h.house.address, p.id, p.request, p.owned})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleClient)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.house.family.begin(cmd); err != nil {
		return nil, err
	}
	v := &visitor{cmd: cmd, done: make(chan struct{}), spoke: make(chan struct{})}
	go func() {
		_, _ = in.Write(message) // one that is killed does not read
		_ = in.Close()           // as above
		first := bufio.NewReader(out)
		_, _ = first.Peek(1) // at its end there is none
		close(v.spoke)
		v.told = lines(first)
		_ = h.house.family.end(cmd) // what it has told counts
		close(v.done)
	}()
	return v, nil
}

// patron drives an execution by a client process. With strike the client is
// killed at a random moment, of four kills three when its execution is started:
// on a busy machine hardly any would be otherwise.
func (h *harness) patron(w *worker, r *run, strike bool) error {
	v, err := h.visit(r.plan)
	if err != nil {
		return err
	}
	if strike {
		if w.rand.IntN(4) > 0 {
			select {
			case <-v.spoke:
			case <-h.ctx.Done():
			}
		}
		w.pause(h.ctx, 600)
		if r.owned {
			r.markOrphaned() // before the kill: the verdict may follow at once
		}
		_ = v.cmd.Process.Kill() // it may have ended, which done tells
		w.clientKills.Add(1)
	} else {
		select {
		case <-v.done:
		case <-h.ctx.Done():
			_ = v.cmd.Process.Kill() // as above
		}
	}
	<-v.done
	for _, line := range v.told {
		if string(line) == "started" {
			r.markStarted()
			continue
		}
		response, err := spec.DecodeResponse(line)
		if err == nil {
			err = r.judge(response)
		}
		if err != nil {
			return fmt.Errorf("told to a client: %w", err)
		}
	}
	response, err := h.wait(&w.link, r.id)
	if isFault(err, fault.NotFound) && strike && !r.wasStarted() {
		return nil // recheck asks again when all is quiet
	}
	if err != nil {
		return err
	}
	return r.judge(response)
}

func (r *run) wasStarted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}
