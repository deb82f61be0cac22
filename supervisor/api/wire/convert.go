package wire

import (
	"encoding/json"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1/plain"
)

// Nanos is a time as messages have it: nanoseconds since the epoch, 0 for the
// zero time.
func Nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Time is the reverse of Nanos, in UTC.
func Time(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func toInt(n *int32) *int {
	if n == nil {
		return nil
	}
	v := int(*n)
	return &v
}

// ToSummary reads an execution; a nil message gives the zero value.
func ToSummary(m *supervisorv1.Summary) api.Summary {
	if m == nil {
		return api.Summary{}
	}
	return api.Summary{
		ID: m.ExecutionId, Status: m.Status, Reason: m.Reason, Command: m.Command, Labels: m.Labels,
		Owner: m.OwnerUid, Created: Time(m.Created), Started: Time(m.Started), Completed: Time(m.Completed),
		ExitCode: toInt(m.ExitCode), Signal: toInt(m.Signal), KillOnDisconnect: m.KillOnDisconnect,
	}
}

// FromStart makes the message of r.
func FromStart(r *api.StartRequest) *supervisorv1.StartRequest {
	return &supervisorv1.StartRequest{
		Request: r.Request, ExecutionId: r.ID, Profile: r.Profile,
		StreamStdin: r.StreamStdin, KillOnDisconnect: r.KillOnDisconnect, HoldOutput: r.HoldOutput,
	}
}

// FromFilter makes the message of f.
func FromFilter(f *api.Filter) *supervisorv1.ListRequest {
	return &supervisorv1.ListRequest{
		All: f.All, Statuses: f.Statuses, Labels: f.Labels, PageSize: int32(f.PageSize),
		Page: f.Page, IdPrefix: f.IDPrefix, Since: Nanos(f.Since),
	}
}

// ToPage reads a page.
func ToPage(m *supervisorv1.ListResponse) *api.Page {
	p := &api.Page{Next: m.NextPage}
	for _, s := range m.Executions {
		p.Executions = append(p.Executions, ToSummary(s))
	}
	return p
}

// ToStats reads live counters. Metrics that are not JSON are E6002.
func ToStats(m *supervisorv1.Stats) (api.Stats, error) {
	s := api.Stats{ID: m.ExecutionId, Command: m.Command, MemoryLimit: m.MemoryLimitBytes, PidsLimit: m.PidsLimit,
		Memory: m.MemoryBytes, Pids: m.Pids}
	if len(m.Metrics) == 0 {
		return s, nil
	}
	s.Metrics = new(spec.Metrics)
	if err := json.Unmarshal(m.Metrics, s.Metrics); err != nil {
		return s, fault.Wrap(fault.JSONSyntax, "decode metrics", err)
	}
	return s, nil
}

// ToEvent reads an event.
func ToEvent(m *supervisorv1.EventsResponse) api.Event {
	return api.Event{Sequence: m.Sequence, Time: Time(m.Time), Type: m.Type, ExecutionID: m.ExecutionId, Attributes: m.Attributes}
}

// ToInfo reads what a supervisor says of itself. It is never embedded.
func ToInfo(m *supervisorv1.InfoResponse) *api.Info {
	return &api.Info{
		Version: m.Version, StateDir: m.StateDir, Running: int(m.Running), Queued: int(m.Queued),
		MaxConcurrent: int(m.MaxConcurrent), MaxQueued: int(m.MaxQueued),
		MemoryBudget: m.MemoryBudgetBytes, MemoryInUse: m.MemoryReservedBytes,
		History: int(m.HistoryExecutions), HistoryBytes: m.HistoryBytes, Sequence: m.Sequence,
		Started: Time(m.Started), Draining: m.Draining, Pid: int(m.Pid), APIVersions: m.ApiVersions,
	}
}
