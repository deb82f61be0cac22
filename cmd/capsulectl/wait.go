package main

import (
	"context"
	"strconv"
	"sync"

	"github.com/capsule-run/capsule/spec"
)

const waitAbout = `Wait until executions have ended. For one id the exit status is what run would have
exited with, and so is what is said on stderr. For several, a line on stdout says how
each ended, as soon as it has, and the exit status is the first in the order of the
ids that is not 0. With -o json it prints the ExecutionResponse, or an array of them.

Usage:
  capsulectl wait ID...

Examples:
  id=$(capsulectl run -d -- make test)
  capsulectl wait $id && echo passed
`

func waitVerb() verb {
	return verb{name: "wait", usage: "wait until executions have ended", args: "ID...", least: 1, most: unbounded,
		about: waitAbout, after: idNote, run: wait}
}

func wait(ctx context.Context, s *session) (int, error) {
	if len(s.args) == 1 {
		return s.waitOne(ctx)
	}
	var mu sync.Mutex
	codes := make(map[string]int)
	outcomes := s.each(ctx, func(ctx context.Context, id string) (any, error) {
		r, err := s.wait(ctx, id)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		codes[id] = spec.ExitStatus(r, 0)
		if !s.jsonOutput {
			s.print(id + " " + strconv.Itoa(codes[id]) + " " + printable(ending(r)))
		}
		return r, nil
	})
	code := 0
	for _, o := range outcomes {
		n := codes[o.id]
		if o.err != nil {
			n = spec.ExitRefused
			if !s.jsonOutput {
				_ = s.diagnose(faultLines(o.err))
			}
		}
		if code == 0 {
			code = n
		}
	}
	if s.jsonOutput {
		return s.array(outcomes, code)
	}
	return code, nil
}

func (s *session) waitOne(ctx context.Context) (int, error) {
	id, err := s.resolve(ctx, s.args[0])
	if err != nil {
		return 0, err
	}
	s.rep.inv.id = id
	r, err := s.wait(ctx, id)
	if err != nil {
		return 0, err
	}
	if !s.jsonOutput && r.Status != spec.StatusSuccess {
		// The verdict names the limits. Without them it is shorter.
		if d, err := s.link.current().Inspect(ctx, id); err == nil {
			s.rep.request = d.Request
		}
	}
	return s.rep.respond(r), nil
}
