package main

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

const psAbout = `List executions, newest first: those that live, and with -a also those that ended.

Usage:
  capsulectl ps [-a] [--filter FILTER]... [-q] [-n N]

Filters, of which all must hold:
  status=STATUS    queued, starting, running, success, error, timeout or killed
                   (repeated: one of them; one that has ended implies -a)
  label=KEY=VALUE  has this label; label=KEY: has one of that name
  id=PREFIX        has an id that begins so

Examples:
  capsulectl ps
  capsulectl ps -a --filter status=error --filter label=user=42
  capsulectl ps -a -o template='{{.execution_id}} {{.status}}'
  capsulectl stop $(capsulectl ps -q)
`

func psVerb() verb {
	return verb{
		name: "ps", usage: "list executions", about: psAbout, run: ps,
		options: []option{
			switchOption("all", 'a', "also those that have ended", func(k *call) *bool { return &k.all }),
			{name: "filter", value: "FILTER", group: groupFlags, take: takeFilter, usage: "only those that match, see above (repeatable)"},
			switchOption("quiet", 'q', "print the ids only", func(k *call) *bool { return &k.quiet }),
			{name: "limit", short: 'n', value: "N", group: groupFlags, usage: "at most N, the newest (default: all)",
				take: func(k *call, v string) error { return parseAtLeast(&k.limit, v, 1) }},
		},
	}
}

// parseAtLeast reads a number that is least or more.
func parseAtLeast(to *int, v string, least int) error {
	n, err := strconv.Atoi(v)
	if err != nil {
		return fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is not a number")
	}
	if n < least {
		return fault.New(fault.OutOfRange, "", v+" is less than "+strconv.Itoa(least))
	}
	*to = n
	return nil
}

// statuses that a filter can name; the first three live.
func statuses() []string {
	return []string{api.StatusQueued, api.StatusStarting, api.StatusRunning,
		string(spec.StatusSuccess), string(spec.StatusError), string(spec.StatusTimeout), string(spec.StatusKilled)}
}

func takeFilter(k *call, v string) error {
	kind, value, _ := strings.Cut(v, "=")
	switch {
	case kind == "status":
		i := slices.Index(statuses(), value)
		if i < 0 {
			f := fault.New(fault.InvalidValue, "", strconv.Quote(value)+" is no status")
			f.Hint = "There are " + strings.Join(statuses(), ", ") + "."
			return f
		}
		k.all = k.all || i > 2
		k.statuses = append(k.statuses, value)
		return nil
	case kind == "id" && value != "":
		k.idPrefix = strings.ToLower(value)
		return nil
	}
	return takeLabelFilter(k, v)
}

// takeLabelFilter takes label=KEY and label=KEY=VALUE.
func takeLabelFilter(k *call, v string) error {
	label, ok := strings.CutPrefix(v, "label=")
	key, value, _ := strings.Cut(label, "=")
	if !ok || key == "" {
		return fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is no filter").
			WithHint("See capsulectl " + k.verb.name + " --help.")
	}
	setEntry(&k.labels, key, value)
	return nil
}

func ps(ctx context.Context, s *session) (int, error) {
	all, err := s.list(ctx, &api.Filter{All: s.all, Statuses: s.statuses, Labels: s.labels, IDPrefix: s.idPrefix}, s.limit)
	if err != nil {
		return 0, err
	}
	switch {
	case s.jsonOutput && s.quiet:
		ids := make([]string, len(all))
		for i := range all {
			ids[i] = all[i].ID
		}
		return s.document(ids, 0)
	case s.jsonOutput:
		return s.document(all, 0)
	case s.quiet:
		var b strings.Builder
		for i := range all {
			b.WriteString(all[i].ID + "\n")
		}
		if b.Len() == 0 {
			return 0, nil
		}
		return s.print(b.String()), nil
	}
	_, _, terminal := s.size(s.stdout)
	return s.printTable(psTable(all, time.Now(), uint32(os.Geteuid()), terminal)), nil
}

// list collects pages up to limit executions, 0 for all. The result is not nil.
func (s *session) list(ctx context.Context, f *api.Filter, limit int) ([]api.Summary, error) {
	all := []api.Summary{}
	for {
		f.PageSize = 1000
		if limit > 0 {
			f.PageSize = min(limit-len(all), 1000)
		}
		page, err := s.link.current().List(ctx, f)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Executions...)
		if page.Next == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		f.Page = page.Next
	}
}

// psTable shows executions. Ids are short where a person reads them. The owner
// is shown when it is not always the caller, and labels when there are any.
func psTable(all []api.Summary, now time.Time, self uint32, short bool) *table {
	owners := slices.ContainsFunc(all, func(s api.Summary) bool { return s.Owner != self })
	labels := slices.ContainsFunc(all, func(s api.Summary) bool { return len(s.Labels) > 0 })
	t := &table{}
	add := func(id, owner, status, color, result, created, ran, label, command string) {
		texts := []string{id, owner, status, result, created, ran, label, command}
		if !labels {
			texts = slices.Delete(texts, 6, 7)
		}
		if !owners {
			texts = slices.Delete(texts, 1, 2)
		}
		t.row(texts...)
		t.paint(slices.Index(texts, status), color)
	}
	add("ID", "UID", "STATUS", "", "RESULT", "CREATED", "RAN", "LABELS", "COMMAND")
	for i := range all {
		s := &all[i]
		id := s.ID
		if short {
			id = shortID(id)
		}
		add(id, strconv.Itoa(int(s.Owner)), printable(s.Status), statusColor(s), result(s), age(s.Created, now), ran(s, now), labelList(s.Labels), commandLine(s.Command))
	}
	return t
}

// shortID is enough of an id to tell executions apart.
func shortID(id string) string { return id[:min(len(id), 13)] }

// result is how an execution ended, in a word or two.
func result(s *api.Summary) string {
	switch {
	case s.Live():
		return "-"
	case s.ExitCode != nil:
		return "exit " + strconv.Itoa(*s.ExitCode)
	case s.Signal != nil && s.Reason == string(spec.ReasonSignaled):
		return signalNumber(*s.Signal)
	case s.Reason == string(spec.ReasonKilledByCaller):
		return "by caller"
	}
	return printable(s.Reason)
}

func statusColor(s *api.Summary) string {
	switch {
	case s.Live():
		return "36" // cyan
	case s.Status == string(spec.StatusSuccess) && s.ExitCode != nil && *s.ExitCode == 0:
		return "32" // green
	case s.Status == string(spec.StatusSuccess):
		return "33" // yellow
	}
	return "31" // red
}

// age is the time since then, and "-" when it is not known.
func age(then, now time.Time) string {
	if then.IsZero() {
		return "-"
	}
	d := now.Sub(then)
	if d > time.Second {
		d = d.Truncate(time.Second)
	}
	return span(d) + " ago"
}

// ran is how long the command ran, or runs so far.
func ran(s *api.Summary, now time.Time) string {
	switch {
	case s.Started.IsZero():
		return "-"
	case !s.Completed.IsZero():
		now = s.Completed
	case !s.Live():
		return "-"
	}
	return span(now.Sub(s.Started))
}

func labelList(labels map[string]string) string {
	if len(labels) == 0 {
		return "-"
	}
	var all []string
	for k, v := range labels {
		all = append(all, word(k)+"="+printableValue(v))
	}
	slices.Sort(all)
	return brief(strings.Join(all, ","), 40)
}

// printableValue is word, but nothing for nothing.
func printableValue(v string) string {
	if v == "" {
		return ""
	}
	return word(v)
}
