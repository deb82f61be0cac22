package server

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/capsule-run/capsule/spec/fault"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// A hostile request can have a million problems; their list has to fit into a
// message all the same.
const (
	maxFaults  = 256
	maxText    = 16 << 10
	maxDetails = 64 << 10
)

// statusOf turns an error into the status that carries it. Every fault of a
// fault.List is a detail of its own, up to 256 of them. Nil gives nil; a
// status stays as it is.
func statusOf(err error) error {
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
		if st.Details = append(st.Details, detail); proto.Size(st) > wire.MaxResponse {
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
