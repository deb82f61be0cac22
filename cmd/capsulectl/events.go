package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

const eventsAbout = `Print what happens, a line each, until Ctrl-C: time, sequence number, type, execution
and attributes. It begins now; with --since after that sequence number, as far as
events are kept. With -o json each line is an object.

Usage:
  capsulectl events [--since SEQ] [--no-follow]

Examples:
  capsulectl events
  capsulectl events --no-follow                 all that is kept
  capsulectl events -o json --since 1042 | jq 'select(.type=="execution.ended")'
`

func eventsVerb() verb {
	return verb{
		name: "events", usage: "print what happens", about: eventsAbout, run: events,
		options: []option{
			{name: "since", value: "SEQ", group: groupFlags, usage: "begin after this sequence number; 0: with the oldest that is kept",
				take: func(k *call, v string) error {
					n, err := strconv.ParseUint(v, 10, 64)
					if err != nil {
						return fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is no sequence number")
					}
					k.since, k.sinceGiven = n, true
					return nil
				}},
			switchOption("no-follow", 0, "end after what is kept (from the oldest, without --since)", func(k *call) *bool { return &k.noFollow }),
		},
	}
}

func events(ctx context.Context, s *session) (int, error) {
	after := s.since
	if !s.sinceGiven && !s.noFollow {
		info, err := s.link.current().Info(ctx)
		if err != nil {
			return 0, err
		}
		after = info.Sequence
	}
	var unwritten error
	err := s.link.persist(ctx, func(to api.Supervisor) error {
		return to.Events(ctx, after, !s.noFollow, func(e api.Event) error {
			if s.jsonOutput {
				unwritten = s.jsonLine(e)
			} else {
				_, unwritten = s.stdout.Write([]byte(eventLine(&e) + "\n"))
			}
			after = e.Sequence
			return unwritten
		})
	})
	if unwritten != nil {
		return s.unwritten(unwritten), nil
	}
	return 0, err
}

func eventLine(e *api.Event) string {
	fields := []string{e.Time.Local().Format("2006-01-02 15:04:05.000"), strconv.FormatUint(e.Sequence, 10), printable(e.Type)}
	if e.ExecutionID != "" {
		fields = append(fields, printable(e.ExecutionID))
	}
	for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
		if strings.HasPrefix(e.Attributes[k], "{") {
			continue // a document is for programs
		}
		fields = append(fields, word(k)+"="+printableValue(e.Attributes[k]))
	}
	return strings.Join(fields, " ")
}

// jsonLine prints v as one line of JSON. The error is that of stdout.
func (s *session) jsonLine(v any) error {
	data, err := (&session{call: &call{}}).encode(v)
	if err != nil {
		return err
	}
	return s.show(s.stdout, data)
}

// unwritten is the exit status when stdout failed, which is told unless its
// reader has gone.
func (s *session) unwritten(err error) int {
	s.rep.broken = err
	return s.rep.brokenStream()
}
