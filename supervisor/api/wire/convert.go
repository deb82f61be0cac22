package wire

import (
	"encoding/json"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
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

func fromInt(n *int) *int32 {
	if n == nil {
		return nil
	}
	v := int32(*n)
	return &v
}

func toInt(n *int32) *int {
	if n == nil {
		return nil
	}
	v := int(*n)
	return &v
}

// FromSummary makes the message of s.
func FromSummary(s *api.Summary) *supervisorv1.Summary {
	return &supervisorv1.Summary{
		ExecutionId: s.ID, Status: s.Status, Reason: s.Reason, Command: validList(s.Command), Labels: validMap(s.Labels),
		OwnerUid: s.Owner, Created: Nanos(s.Created), Started: Nanos(s.Started), Completed: Nanos(s.Completed),
		ExitCode: fromInt(s.ExitCode), Signal: fromInt(s.Signal), KillOnDisconnect: s.KillOnDisconnect,
	}
}

// ToSummary is the reverse of FromSummary; a nil message gives the zero value.
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

// ToStart is the reverse of FromStart; a nil message gives the zero value.
func ToStart(m *supervisorv1.StartRequest) *api.StartRequest {
	return &api.StartRequest{
		Request: m.GetRequest(), ID: m.GetExecutionId(), Profile: m.GetProfile(),
		StreamStdin: m.GetStreamStdin(), KillOnDisconnect: m.GetKillOnDisconnect(), HoldOutput: m.GetHoldOutput(),
	}
}

// FromFilter makes the message of f.
func FromFilter(f *api.Filter) *supervisorv1.ListRequest {
	return &supervisorv1.ListRequest{
		All: f.All, Statuses: f.Statuses, Labels: f.Labels, PageSize: int32(f.PageSize),
		Page: f.Page, IdPrefix: f.IDPrefix, Since: Nanos(f.Since),
	}
}

// ToFilter is the reverse of FromFilter.
func ToFilter(m *supervisorv1.ListRequest) *api.Filter {
	return &api.Filter{
		All: m.All, Statuses: m.Statuses, Labels: m.Labels, PageSize: int(m.PageSize),
		Page: m.Page, IDPrefix: m.IdPrefix, Since: Time(m.Since),
	}
}

// FromPage makes the message of p.
func FromPage(p *api.Page) *supervisorv1.ListResponse {
	m := &supervisorv1.ListResponse{NextPage: p.Next}
	for i := range p.Executions {
		m.Executions = append(m.Executions, FromSummary(&p.Executions[i]))
	}
	return m
}

// ToPage is the reverse of FromPage.
func ToPage(m *supervisorv1.ListResponse) *api.Page {
	p := &api.Page{Next: m.NextPage}
	for _, s := range m.Executions {
		p.Executions = append(p.Executions, ToSummary(s))
	}
	return p
}

// FromStats makes the message of s.
func FromStats(s *api.Stats) *supervisorv1.Stats {
	m := &supervisorv1.Stats{
		ExecutionId: s.ID, Command: validList(s.Command), MemoryLimitBytes: s.MemoryLimit, PidsLimit: s.PidsLimit,
		MemoryBytes: s.Memory, Pids: s.Pids,
	}
	if s.Metrics != nil {
		// NaN and infinity, which alone cannot be encoded, are not measured.
		m.Metrics, _ = json.Marshal(s.Metrics)
	}
	return m
}

// ToStats is the reverse of FromStats. Metrics that are not JSON are E6002.
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

// FromEvent makes the message of e.
func FromEvent(e *api.Event) *supervisorv1.EventsResponse {
	return &supervisorv1.EventsResponse{
		Sequence: e.Sequence, Time: Nanos(e.Time), Type: e.Type, ExecutionId: e.ExecutionID, Attributes: validMap(e.Attributes),
	}
}

// ToEvent is the reverse of FromEvent.
func ToEvent(m *supervisorv1.EventsResponse) api.Event {
	return api.Event{Sequence: m.Sequence, Time: Time(m.Time), Type: m.Type, ExecutionID: m.ExecutionId, Attributes: m.Attributes}
}

// FromInfo makes the message of i.
func FromInfo(i *api.Info) *supervisorv1.InfoResponse {
	return &supervisorv1.InfoResponse{
		Version: i.Version, StateDir: valid(i.StateDir), Running: int32(i.Running), Queued: int32(i.Queued),
		MaxConcurrent: int32(i.MaxConcurrent), MaxQueued: int32(i.MaxQueued),
		MemoryBudgetBytes: i.MemoryBudget, MemoryReservedBytes: i.MemoryInUse,
		HistoryExecutions: int32(i.History), HistoryBytes: i.HistoryBytes, Sequence: i.Sequence,
		Started: Nanos(i.Started), Draining: i.Draining, Pid: int32(i.Pid), ApiVersions: []string{Version},
	}
}

// ToInfo is the reverse of FromInfo. It is never embedded.
func ToInfo(m *supervisorv1.InfoResponse) *api.Info {
	return &api.Info{
		Version: m.Version, StateDir: m.StateDir, Running: int(m.Running), Queued: int(m.Queued),
		MaxConcurrent: int(m.MaxConcurrent), MaxQueued: int(m.MaxQueued),
		MemoryBudget: m.MemoryBudgetBytes, MemoryInUse: m.MemoryReservedBytes,
		History: int(m.HistoryExecutions), HistoryBytes: m.HistoryBytes, Sequence: m.Sequence,
		Started: Time(m.Started), Draining: m.Draining, Pid: int(m.Pid), APIVersions: m.ApiVersions,
	}
}
