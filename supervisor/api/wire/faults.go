package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1/plain"
)

// Fault turns the error of a call back into what the supervisor's own error
// was: a *fault.Fault, or a fault.List when it was several. What has no fault
// in it, because no supervisor made it, becomes E6004 when the connection is
// lost, E3007 when ctx ended it, and otherwise what fits the status.
func Fault(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	// A done context says more than what its end does to the connection.
	if cause := ctx.Err(); cause != nil {
		return fault.Wrap(fault.Cancelled, op, cause)
	}
	var own *fault.Fault
	if errors.As(err, &own) {
		return err
	}
	var st *wire.Status
	if !errors.As(err, &st) {
		return lost(op, err)
	}
	var list fault.List
	for _, detail := range st.Details {
		if data := detail.Message(2); detail.String(1) == faultType && data.Check() == nil {
			var m supervisorv1.Fault
			if m.Decode(data); m.Code != "" {
				list = append(list, decodeFault(&m))
			}
		}
	}
	switch len(list) {
	case 0:
		return foreign(op, st)
	case 1:
		return list[0]
	}
	return list
}

// faultType is how an Any names a Fault.
const faultType = "type.googleapis.com/capsule.supervisor.v1.Fault"

// lost is the fault of a connection that ended.
func lost(op string, err error) error {
	f := fault.Wrap(fault.Unreachable, op, err)
	if errors.Is(err, wire.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		f.Err = errors.New("the connection to the supervisor is lost")
		f.Hint = "Connect again: executions go on without the connection, and finished ones keep their result."
	}
	return f
}

// foreign is for a status that no supervisor made.
func foreign(op string, st *wire.Status) error {
	f := fault.New(fault.SystemCall, op, st.Text)
	switch st.Code {
	case wire.Unimplemented:
		f.Code = fault.Unsupported
		f.Hint = "The supervisor speaks an older version of the protocol; upgrade capsuled."
	case wire.ResourceExhausted:
		f.Code = fault.OutOfRange
	case wire.InvalidArgument:
		f.Code = fault.InvalidValue
	case wire.Canceled, wire.DeadlineExceeded:
		f.Code = fault.Cancelled
	case wire.Unavailable:
		f.Code = fault.Unreachable
	}
	return f
}

func decodeFault(m *supervisorv1.Fault) *fault.Fault {
	// The message has the path in it already, and would get it a second time
	// as a cause.
	f := &fault.Fault{Code: fault.Code(m.Code), Op: m.Message, Field: m.Field, Hint: m.Hint, Path: m.Path}
	if len(m.Details) > 0 {
		d := json.NewDecoder(bytes.NewReader(m.Details))
		d.UseNumber()
		if d.Decode(&f.Details) == nil {
			numbers(f.Details)
		}
	}
	return f
}

// numbers makes integers int64, as whoever reads details expects them.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		x, _ := v.Float64() // beyond its range it is infinite, which is as near as it gets
		return x
	case map[string]any:
		for k, e := range v {
			v[k] = numbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = numbers(e)
		}
	}
	return v
}
