// Package client talks to a capsule supervisor (capsuled) over its unix socket.
// A Client is an api.Supervisor, so that a program can use a daemon and an
// embedded supervisor by the same code. Orchestrators import this package and
// supervisor/api; it needs neither net/http nor cgo.
//
//	c, err := client.Dial(ctx, "/run/capsule/capsuled.sock")
//	if err != nil { ... }
//	defer c.Close()
//	response, err := c.Run(ctx, &api.StartRequest{Request: []byte(`{"command":["echo","hello"]}`)})
//
// # Errors
//
// Every error is a *fault.Fault, or a fault.List when a request has several
// problems: the same code, field, hint and details that the supervisor made.
// Compare by code:
//
//	errors.Is(err, &fault.Fault{Code: fault.NotFound})
//
// A lost connection is fault.Unreachable, and a done context fault.Cancelled,
// in which errors.Is finds context.Canceled or context.DeadlineExceeded. That
// an execution failed is not an error: its response says so.
//
// # Lost connections
//
// A Client does not connect again by itself, because its connection owns the
// executions that were started with KillOnDisconnect. After fault.Unreachable
// dial again and, within ten seconds, repeat Start with the same id and request
// or call WaitOwned for those that are to live on. Choose ids yourself (UUIDs, in
// lower case): Start is idempotent by id, so that one whose answer was lost can be
// repeated.
//
// To resume Attach count the bytes that your writers got (and those that Missed
// told), and pass the counts as offsets. Events resumes by the last sequence number.
//
// # Limits
//
// A message holds 4 MiB. Output that does not fit into a response is fetched by
// itself. A request that is large because of its stdin is sent without it, and
// stdin follows as a stream; until it has been taken (Flush waits for that) the
// Client must stay open. Other requests beyond 3 MiB are fault.OutOfRange.
package client
