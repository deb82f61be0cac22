// Package server offers supervisors to callers over ttrpc on unix sockets: the
// service capsule.supervisor.v1. It knows who calls, keeps what callers send
// within bounds, and ends executions whose callers are gone. What executions
// are it leaves to an api.Supervisor, one view of which it gets for each
// caller's uid.
//
// A caller is not trusted: whatever it sends, only its own connection suffers.
package server
