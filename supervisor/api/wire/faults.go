package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"

	"github.com/capsule-run/capsule/spec/fault"
)

// A hostile request can have a million problems; their list has to fit into a
// message all the same.
const (
	maxFaults  = 256
	maxText    = 16 << 10
	maxDetails = 64 << 10
)

// Status turns an error into the status that carries it. Every fault of a
// fault.List is a detail of its own, up to 256 of them. Nil gives nil; a
// status stays as it is.
func Status(err error) error {
	if err == nil {
		return nil
	}
	var list fault.List
	if !errors.As(err, &list) || len(list) == 0 {
		f := asFault(err)
		if f == nil {
			return err // it is a status already
		}
		list = fault.List{f}
	}
	message := list[0].Error()
	if more := len(list) - 1; more > 0 {
		message += " (and " + strconv.Itoa(more) + " more)"
	}
	st := status.New(grpcCode(list[0], err), cut(message, maxText)).Proto()
	for _, f := range list[:min(len(list), maxFaults)] {
		detail, err := anypb.New(encodeFault(f))
		if err != nil {
			continue // strings that were made valid below cannot be refused
		}
		if st.Details = append(st.Details, detail); proto.Size(st) > MaxResponse {
			break
		}
	}
	return status.ErrorProto(st)
}

// asFault finds or makes the fault of an error; nil when it is a status.
func asFault(err error) *fault.Fault {
	var f *fault.Fault
	if errors.As(err, &f) {
		return f
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Wrap(fault.Cancelled, "", err)
	}
	if _, ok := status.FromError(err); ok {
		return nil
	}
	f = fault.Wrap(fault.IO, "", err)
	if f.Errno != 0 {
		f.Code = fault.SystemCall
	}
	return f
}

func encodeFault(f *fault.Fault) *supervisorv1.Fault {
	m := &supervisorv1.Fault{
		Code: string(f.Code), Message: cut(f.Message(), maxText), Field: cut(f.Field, maxText),
		Hint: cut(f.Remedy(), maxText), Path: cut(f.Path, maxText),
	}
	if len(f.Details) > 0 {
		if data, err := json.Marshal(f.Details); err == nil && len(data) <= maxDetails {
			m.Details = data
		}
	}
	return m
}

// cut bounds a text and makes it UTF-8, which a message insists on.
func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// grpcCode is for callers that know only such codes.
func grpcCode(f *fault.Fault, err error) codes.Code {
	switch f.Code {
	case fault.NotFound:
		return codes.NotFound
	case fault.TooManyExecutions:
		return codes.ResourceExhausted
	case fault.NotAuthorised, fault.CommandRefused, fault.PathRefused, fault.SyscallRefused:
		return codes.PermissionDenied
	case fault.JSONSyntax:
		return codes.InvalidArgument
	case fault.Unreachable:
		return codes.Unavailable
	case fault.StateUnreadable, fault.ShimLost:
		return codes.DataLoss
	case fault.Unsupported:
		return codes.Unimplemented
	case fault.Timeout, fault.SetupTimeout:
		return codes.DeadlineExceeded
	case fault.Cancelled:
		if errors.Is(err, context.DeadlineExceeded) {
			return codes.DeadlineExceeded
		}
		return codes.Canceled
	case fault.IO, fault.SystemCall:
		return codes.Internal
	}
	switch {
	case strings.HasPrefix(string(f.Code), "E1"):
		return codes.InvalidArgument
	case strings.HasPrefix(string(f.Code), "E2"), strings.HasPrefix(string(f.Code), "E4"):
		return codes.FailedPrecondition
	}
	return codes.Unknown
}

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
	st, ok := status.FromError(err)
	if !ok {
		return lost(op, err)
	}
	var list fault.List
	for _, detail := range st.Proto().GetDetails() {
		var m supervisorv1.Fault
		if detail.UnmarshalTo(&m) == nil && m.Code != "" {
			list = append(list, decodeFault(&m))
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

// lost is the fault of a connection that ended.
func lost(op string, err error) error {
	f := fault.Wrap(fault.Unreachable, op, err)
	if errors.Is(err, ttrpc.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		f.Err = errors.New("the connection to the supervisor is lost")
		f.Hint = "Connect again: executions go on without the connection, and finished ones keep their result."
	}
	return f
}

// foreign is for a status that ttrpc made.
func foreign(op string, st *status.Status) error {
	f := fault.New(fault.SystemCall, op, st.Message())
	switch st.Code() {
	case codes.Unimplemented:
		f.Code = fault.Unsupported
		f.Hint = "The supervisor speaks an older version of the protocol; upgrade capsuled."
	case codes.ResourceExhausted:
		f.Code = fault.OutOfRange
	case codes.InvalidArgument:
		f.Code = fault.InvalidValue
	case codes.Canceled, codes.DeadlineExceeded:
		f.Code = fault.Cancelled
	case codes.Unavailable:
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
