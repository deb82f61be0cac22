package main

import (
	"bufio"
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

const pruneAbout = `Forget executions that have ended, with their verdicts and their output: all of them,
or those that match. On a terminal it asks first.

Usage:
  capsulectl prune [--before AGE] [--filter label=KEY[=VALUE]]... [-f]

Examples:
  capsulectl prune --before 24h
  capsulectl prune -f --filter label=user=42
`

const infoAbout = `Describe the supervisor: the daemon, or the one in capsulectl when there is no daemon.

Usage:
  capsulectl info

Examples:
  capsulectl info
  capsulectl info -o json | jq .running
`

func pruneVerb() verb {
	return verb{
		name: "prune", usage: "forget executions that have ended", about: pruneAbout, run: prune,
		options: []option{
			{name: "before", value: "AGE", group: groupFlags, usage: "only those that ended longer ago, for example 90m or 24h", take: func(k *call, v string) error {
				ms, err := spec.ParseDuration(v)
				k.before = time.Duration(min(ms, maxAge)) * time.Millisecond
				return err
			}},
			{name: "filter", value: "FILTER", group: groupFlags, usage: "only those with this label (repeatable)", take: takeLabelFilter},
			switchOption("force", 'f', "do not ask", func(k *call) *bool { return &k.force }),
		},
	}
}

// maxAge is a century in milliseconds; more overflows a time.Duration.
const maxAge = 100 * 365 * 24 * 3600 * 1000

func infoVerb() verb {
	return verb{name: "info", usage: "describe the supervisor", about: infoAbout, run: info}
}

func prune(ctx context.Context, s *session) (int, error) {
	o := &api.PruneOptions{Labels: s.labels}
	question := "Forget every execution that has ended"
	if s.before > 0 {
		o.Before = time.Now().Add(-s.before)
		question += " more than " + span(s.before) + " ago"
	}
	if len(s.labels) > 0 {
		question += " with " + labelList(s.labels)
	}
	if !s.force && !s.jsonOutput && !s.confirm(question) {
		return 0, fault.New(fault.Cancelled, "", "nothing was removed").WithHint("Answer y, or give --force.")
	}
	done := s.progress("removing executions")
	p, err := s.link.current().Prune(ctx, o)
	done()
	switch {
	case err != nil:
		return 0, err
	case s.jsonOutput:
		return s.document(p, 0)
	}
	text := "removed " + strconv.Itoa(p.Removed) + " executions"
	if p.Removed == 1 {
		text = "removed 1 execution"
	}
	if p.Bytes > 0 {
		text += ", " + spec.FormatBytes(p.Bytes)
	}
	return s.print(text), nil
}

// confirm asks on a terminal; where there is none, nobody can answer, and the
// command is taken at its word.
func (s *session) confirm(question string) bool {
	_, _, in := s.size(s.stdin)
	_, _, out := s.size(s.stderr)
	if !in || !out {
		return true
	}
	_, _ = io.WriteString(s.stderr, question+"? [y/N] ") // without the question there is no answer
	answer, err := bufio.NewReader(s.stdin).ReadString('\n')
	if err != nil {
		_, _ = io.WriteString(s.stderr, "\n") // a courtesy
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

func info(ctx context.Context, s *session) (int, error) {
	i, err := s.link.current().Info(ctx)
	if err == nil && i.Embedded {
		i.Version = readVersion().Version // it is this program
	}
	switch {
	case err != nil:
		return 0, err
	case s.jsonOutput:
		return s.document(i, 0)
	}
	return s.printTable(infoTable(i, time.Now())), nil
}

func infoTable(i *api.Info, now time.Time) *table {
	t := &table{}
	if i.Embedded {
		t.row("supervisor", "embedded (no daemon)")
	} else {
		t.row("supervisor", "capsuled, pid "+strconv.Itoa(i.Pid))
	}
	t.row("version", printable(i.Version))
	if len(i.APIVersions) > 0 {
		t.row("api", printable(strings.Join(i.APIVersions, ", ")))
	}
	t.row("state", printable(i.StateDir))
	if !i.Started.IsZero() {
		t.row("started", moment(i.Started)+" ("+age(i.Started, now)+")")
	}
	if i.Draining {
		t.row("draining", "yes: it starts nothing more")
	}
	t.row("running", strconv.Itoa(i.Running)+ofMost(i.MaxConcurrent))
	if !i.Embedded {
		t.row("queued", strconv.Itoa(i.Queued)+ofMost(i.MaxQueued))
	}
	if i.MemoryBudget > 0 {
		t.row("memory", spec.FormatBytes(i.MemoryInUse)+" reserved of "+spec.FormatBytes(i.MemoryBudget))
	}
	t.row("history", strconv.Itoa(i.History)+" executions, "+spec.FormatBytes(i.HistoryBytes))
	t.row("last event", strconv.FormatUint(i.Sequence, 10))
	return t
}

func ofMost(n int) string {
	if n == 0 {
		return ""
	}
	return " of at most " + strconv.Itoa(n)
}
