package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// candidatesShown is how many ids an ambiguous prefix is answered with.
const candidatesShown = 10

// resolve finds the execution that an id or the beginning of one names.
func (s *session) resolve(ctx context.Context, given string) (string, error) {
	id := strings.ToLower(given)
	if isUUID(id) {
		return id, nil
	}
	if strings.Trim(id, "0123456789abcdef-") != "" || id == "" || len(id) > 36 {
		return "", fault.New(fault.InvalidValue, "", printable(given)+" is neither an id nor the beginning of one").
			WithHint("capsulectl ps -a shows the ids.")
	}
	page, err := s.link.current().List(ctx, &api.Filter{All: true, IDPrefix: id, PageSize: candidatesShown + 1})
	if err != nil {
		return "", err
	}
	switch found := page.Executions; len(found) {
	case 0:
		return "", fault.New(fault.NotFound, "", "no execution has an id that begins with "+id).WithHint("capsulectl ps -a shows the ids.")
	case 1:
		return found[0].ID, nil
	default:
		return "", ambiguous(id, found)
	}
}

func ambiguous(prefix string, found []api.Summary) error {
	var names []string
	for i := range found[:min(len(found), candidatesShown)] {
		names = append(names, found[i].ID+" ("+brief(commandLine(found[i].Command), 30)+")")
	}
	if len(found) > candidatesShown {
		names = append(names, "and more")
	}
	return fault.New(fault.InvalidValue, "", prefix+" is the beginning of several ids").
		WithHint("It could be " + strings.Join(names, ", ") + ".")
}

// encode is v as JSON, as the caller wants it.
func (s *session) encode(v any) ([]byte, error) {
	if r, ok := v.(*spec.Response); ok {
		return r.Encode(s.pretty), nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if s.pretty {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(v); err != nil {
		return nil, fault.Wrap(fault.IO, "encode the answer", err)
	}
	return b.Bytes(), nil
}

// document prints v as the one JSON document.
func (s *session) document(v any, code int) (int, error) {
	data, err := s.encode(v)
	if err != nil {
		return 0, err
	}
	return s.rep.document(data, code), nil
}

// outcome is what a verb did with one of its arguments.
type outcome struct {
	id    string // as far as it is known
	value any
	err   error
}

// each resolves the arguments and calls f for all of them at once. The outcomes
// are in the order of the arguments.
func (s *session) each(ctx context.Context, f func(ctx context.Context, id string) (any, error)) []outcome {
	outcomes := make([]outcome, len(s.args))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i, given := range s.args {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			id, err := s.resolve(ctx, given)
			if err != nil {
				outcomes[i].err = err
				return
			}
			outcomes[i].id = id
			outcomes[i].value, outcomes[i].err = f(ctx, id)
		})
	}
	wg.Wait()
	return outcomes
}

// report tells what became of each argument: in JSON the value or the envelope
// of its error, an array of them when there are several arguments; else text(o)
// on stdout and errors on stderr. The exit status is 125 when one failed.
func (s *session) report(outcomes []outcome, text func(o outcome) string) (int, error) {
	if len(outcomes) == 1 && outcomes[0].err != nil {
		if isUUID(outcomes[0].id) {
			s.rep.inv.id = outcomes[0].id
		}
		return 0, outcomes[0].err
	}
	code := 0
	for _, o := range outcomes {
		if o.err != nil {
			code = spec.ExitRefused
		}
	}
	if !s.jsonOutput {
		for _, o := range outcomes {
			if o.err != nil {
				_ = s.diagnose(faultLines(o.err))
			} else if n := s.print(text(o)); n != 0 {
				return n, nil
			}
		}
		return code, nil
	}
	if len(outcomes) == 1 {
		return s.document(outcomes[0].value, code)
	}
	return s.array(outcomes, code)
}

// array prints the outcomes as one array.
func (s *session) array(outcomes []outcome, code int) (int, error) {
	all := make([]json.RawMessage, len(outcomes))
	for i, o := range outcomes {
		v := o.value
		if o.err != nil {
			id := o.id
			if id == "" {
				id = newUUID() // as in every refusal that has none
			}
			v = spec.Refused(id, o.err, s.rep.created)
		}
		data, err := s.encode(v)
		if err != nil {
			return 0, err
		}
		all[i] = data
	}
	return s.document(all, code)
}
