package main

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

const inspectAbout = `Show what is known of executions. With -o json it is the ExecutionResponse, which has
status "running" and nulls while the command lives; with --details it is an object
with execution, request, response and pid. Several ids give an array.

Usage:
  capsulectl inspect [--details] ID...

Examples:
  capsulectl inspect 3f2a
  capsulectl inspect -o json 3f2a | jq .exit_code
  capsulectl inspect -o json --details 3f2a | jq .request.isolation
`

func inspectVerb() verb {
	return verb{
		name: "inspect", usage: "show what is known of executions", args: "ID...", least: 1, most: unbounded,
		about: inspectAbout, after: idNote, run: inspect,
		options: []option{switchOption("details", 0, "with -o json: the request, the owner and the pid too", func(k *call) *bool { return &k.details })},
	}
}

const idNote = "An id may be abbreviated as long as only one execution's begins so.\n"

// detailsDocument is `inspect --details -o json`.
type detailsDocument struct {
	Execution api.Summary     `json:"execution"`
	Request   json.RawMessage `json:"request"`
	Response  json.RawMessage `json:"response"`
	// Pid is null when there is no process.
	Pid *int `json:"pid"`
}

func inspect(ctx context.Context, s *session) (int, error) {
	outcomes := s.each(ctx, func(ctx context.Context, id string) (any, error) {
		d, err := s.link.current().Inspect(ctx, id)
		switch {
		case err != nil:
			return nil, err
		case !s.jsonOutput:
			return d, nil
		case s.details || d.Response == nil:
			return documentOf(d), nil
		}
		return d.Response, nil
	})
	first := true
	return s.report(outcomes, func(o outcome) string {
		lines := detailLines(o.value.(*api.Details))
		if !first {
			lines = append([]string{""}, lines...)
		}
		first = false
		return strings.Join(lines, "\n")
	})
}

func documentOf(d *api.Details) detailsDocument {
	doc := detailsDocument{Execution: d.Summary, Request: json.RawMessage("null"), Response: json.RawMessage("null")}
	if d.Request != nil {
		doc.Request = d.Request.Encode()
	}
	if d.Response != nil {
		doc.Response = d.Response.Encode(false)
	}
	if d.Pid != 0 {
		doc.Pid = &d.Pid
	}
	return doc
}

// detailLines show an execution to a person. What is not known is left out.
func detailLines(d *api.Details) []string {
	t := &table{}
	add := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	add("id", d.ID)
	status := printable(d.Status)
	if !d.Live() {
		status += ", " + result(&d.Summary)
	}
	add("status", status)
	add("command", commandLine(d.Command))
	if len(d.Labels) > 0 {
		for _, l := range labelLines(d.Labels) {
			add("label", l)
		}
	}
	add("owner", "uid "+strconv.Itoa(int(d.Owner)))
	if d.Pid != 0 {
		add("pid", strconv.Itoa(d.Pid))
	}
	add("created", moment(d.Created))
	add("started", moment(d.Started))
	add("completed", moment(d.Completed))
	if !d.Started.IsZero() {
		add("ran", ran(&d.Summary, time.Now()))
	}
	if d.KillOnDisconnect {
		add("note", "it is killed when whoever started it disconnects")
	}
	if r := d.Request; r != nil {
		add("limits", "timeout "+duration(r.TimeoutMS)+", memory "+spec.FormatBytes(r.Resources.MemoryBytes)+
			", "+strconv.FormatInt(r.Resources.MaxPids, 10)+" processes, disk "+spec.FormatBytes(r.Resources.DiskBytes))
	}
	lines := t.lines(0, false)
	if r := d.Response; r != nil {
		for _, l := range verboseLines(r, d.Request)[1:] {
			lines = append(lines, printable(l))
		}
		if r.Error != nil {
			lines = append(lines, printable(joinHint("error: "+r.Error.Code+": "+r.Error.Message, r.Error.Hint)))
		}
		for _, w := range r.Warnings {
			lines = append(lines, printable("warning: "+w))
		}
	}
	return lines
}

func labelLines(labels map[string]string) []string {
	var all []string
	for k, v := range labels {
		all = append(all, printable(k)+"="+printable(v))
	}
	slices.Sort(all)
	return all
}

// moment is local time to the second; empty when it is not known.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 -0700")
}
