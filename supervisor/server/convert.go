package server

import (
	"encoding/json"

	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

func fromInt(n *int) *int32 {
	if n == nil {
		return nil
	}
	v := int32(*n)
	return &v
}

// fromSummary makes the message of s.
func fromSummary(s *api.Summary) *supervisorv1.Summary {
	return &supervisorv1.Summary{
		ExecutionId: s.ID, Status: s.Status, Reason: s.Reason, Command: validList(s.Command), Labels: validMap(s.Labels),
		OwnerUid: s.Owner, Created: wire.Nanos(s.Created), Started: wire.Nanos(s.Started), Completed: wire.Nanos(s.Completed),
		ExitCode: fromInt(s.ExitCode), Signal: fromInt(s.Signal), KillOnDisconnect: s.KillOnDisconnect,
	}
}

// toStart reads what is to be started; a nil message gives the zero value.
func toStart(m *supervisorv1.StartRequest) *api.StartRequest {
	return &api.StartRequest{
		Request: m.GetRequest(), ID: m.GetExecutionId(), Profile: m.GetProfile(),
		StreamStdin: m.GetStreamStdin(), KillOnDisconnect: m.GetKillOnDisconnect(), HoldOutput: m.GetHoldOutput(),
	}
}

// toFilter reads a filter.
func toFilter(m *supervisorv1.ListRequest) *api.Filter {
	return &api.Filter{
		All: m.All, Statuses: m.Statuses, Labels: m.Labels, PageSize: int(m.PageSize),
		Page: m.Page, IDPrefix: m.IdPrefix, Since: wire.Time(m.Since),
	}
}

// fromPage makes the message of p.
func fromPage(p *api.Page) *supervisorv1.ListResponse {
	m := &supervisorv1.ListResponse{NextPage: p.Next}
	for i := range p.Executions {
		m.Executions = append(m.Executions, fromSummary(&p.Executions[i]))
	}
	return m
}

// fromStats makes the message of s.
func fromStats(s *api.Stats) *supervisorv1.Stats {
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

// fromEvent makes the message of e.
func fromEvent(e *api.Event) *supervisorv1.EventsResponse {
	return &supervisorv1.EventsResponse{
		Sequence: e.Sequence, Time: wire.Nanos(e.Time), Type: e.Type, ExecutionId: e.ExecutionID, Attributes: validMap(e.Attributes),
	}
}

// fromInfo makes the message of i.
func fromInfo(i *api.Info) *supervisorv1.InfoResponse {
	return &supervisorv1.InfoResponse{
		Version: i.Version, StateDir: valid(i.StateDir), Running: int32(i.Running), Queued: int32(i.Queued),
		MaxConcurrent: int32(i.MaxConcurrent), MaxQueued: int32(i.MaxQueued),
		MemoryBudgetBytes: i.MemoryBudget, MemoryReservedBytes: i.MemoryInUse,
		HistoryExecutions: int32(i.History), HistoryBytes: i.HistoryBytes, Sequence: i.Sequence,
		Started: wire.Nanos(i.Started), Draining: i.Draining, Pid: int32(i.Pid), ApiVersions: []string{wire.Version},
	}
}
