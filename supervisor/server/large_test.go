package server_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

func TestLargeOutput(t *testing.T) {
	for name, size := range map[string]int{"fits": 1 << 20, "does not": 20 << 20} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			address, _ := serve(t, f, nil)
			c := dial(t, address)
			e := start(t, c, &api.StartRequest{})
			f.mu.Lock()
			f.runs[e.ID].stdout = bytes.Repeat([]byte("0123456789abcdef"), size/16)
			f.runs[e.ID].stderr = bytes.Repeat([]byte{0xff, 1}, size/32)
			f.mu.Unlock()
			f.end(e.ID)
			r, err := c.Wait(within(t), e.ID)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := r.StdoutBytes()
			errs, err := r.StderrBytes()
			if err != nil || !bytes.Equal(out, f.runs[e.ID].stdout) || !bytes.Equal(errs, f.runs[e.ID].stderr) {
				t.Errorf("%d and %d bytes, %v", len(out), len(errs), err)
			}
			d, err := c.Inspect(within(t), e.ID)
			if err != nil || len(*d.Response.Stdout) != size {
				t.Error(err)
			}
		})
	}
}

func TestLargeStdin(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	c, ctx := dial(t, address), within(t)
	stdin := strings.Repeat("a line of it\n", 600<<10)
	e := start(t, c, &api.StartRequest{Request: []byte(`{"stdin":"` + strings.ReplaceAll(stdin, "\n", `\n`) + `","command":["cat"]}`)})
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	r := f.last("Start").(*api.StartRequest)
	if string(r.Request) != `{"command":["cat"]}` || !r.StreamStdin {
		t.Errorf("%.100s %v", r.Request, r.StreamStdin)
	}
	f.detached()
	if have := f.runs[e.ID].stdin.String(); have != stdin {
		t.Errorf("%d bytes of %d", len(have), len(stdin))
	}
	for document, code := range map[string]fault.Code{
		`{"command":["` + strings.Repeat("x", 4<<20) + `"]}`:                fault.OutOfRange,
		`{"stdin":"` + strings.Repeat("x", 4<<20) + `","stdin":"x"}`:        fault.UnknownField,
		`{"stdin":17,"command":["` + strings.Repeat("x", 4<<20) + `"]}`:     fault.InvalidValue,
		`{"stdin":"` + strings.Repeat("x", 4<<20):                           fault.JSONSyntax,
		`{"command":["x"],"environment":{` + strings.Repeat(`"a":"",`, 1e6): fault.JSONSyntax,
	} {
		if _, err := c.Start(ctx, &api.StartRequest{Request: []byte(document)}); !errors.Is(err, &fault.Fault{Code: code}) {
			t.Errorf("%.30s: %v", document, err)
		}
	}
}
