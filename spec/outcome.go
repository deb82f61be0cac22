package spec

import (
	"encoding/base64"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/go-json-experiment/json/jsontext"
)

const encodingBase64 = "base64"

// ErrorFrom turns an error into what callers see. A fault gives its code,
// message, remedy and details, to which its field and path are added. A
// fault.List gives those of its first fault and, in details.problems, all of
// them as {code, pointer, message, hint}. Any other error is E6003 when a
// system call failed in it and E6001 otherwise. Nil gives nil.
func ErrorFrom(err error) *Error {
	if err == nil {
		return nil
	}
	var list fault.List
	if errors.As(err, &list) && len(list) > 0 {
		return errorFromList(list)
	}
	var f *fault.Fault
	if !errors.As(err, &f) {
		f = fault.Wrap(fault.IO, "", err)
		if f.Errno != 0 {
			f.Code = fault.SystemCall
		}
	}
	e := &Error{Code: string(f.Code), Message: f.Message(), Hint: f.Remedy()}
	e.Details = details(f, f.Field, f.Path)
	return e
}

// details copies the details of f and adds what is not empty.
func details(f *fault.Fault, field, path string) map[string]any {
	if len(f.Details) == 0 && field == "" && path == "" {
		return nil
	}
	all := make(map[string]any, len(f.Details)+2)
	for k, v := range f.Details {
		all[k] = v
	}
	if field != "" {
		all["field"] = field
	}
	if path != "" {
		all["path"] = path
	}
	return all
}

func errorFromList(list fault.List) *Error {
	first := list[0]
	message := first.Message()
	if first.Field != "" {
		message = first.Field + ": " + message
	}
	switch more := len(list) - 1; {
	case more == 1:
		message += " (and 1 more problem)"
	case more > 1:
		message += " (and " + strconv.Itoa(more) + " more problems)"
	}
	problems := make([]any, len(list))
	for i, f := range list {
		problems[i] = map[string]any{
			"code": string(f.Code), "pointer": f.Field, "message": f.Message(), "hint": f.Remedy(),
		}
	}
	e := &Error{Code: string(first.Code), Message: message, Hint: first.Remedy()}
	e.Details = details(first, "", "")
	if e.Details == nil {
		e.Details = make(map[string]any, 1)
	}
	e.Details["problems"] = problems
	return e
}

// Refused is the response to a request that was never executed: status error,
// reason refused, the given error, and no other moment than its creation. An
// id may be empty when none was given out.
func Refused(id string, err error, created time.Time) *Response {
	return &Response{
		ExecutionID: id,
		Status:      StatusError,
		Termination: Termination{Reason: ReasonRefused},
		Timestamps:  Timestamps{Created: created.UTC()},
		Error:       ErrorFrom(err),
	}
}

// Lost is the response of an execution of which nobody can tell how it ended:
// as Refused, with reason shim_lost.
func Lost(id string, err error, created time.Time) *Response {
	r := Refused(id, err, created)
	r.Termination.Reason = ReasonShimLost
	return r
}

// SetOutput stores what was kept of both streams: as text when it is UTF-8,
// otherwise as base64, each stream by itself. It copies the bytes and does
// not touch Output.
func (r *Response) SetOutput(stdout, stderr []byte) {
	r.Stdout, r.StdoutEncoding = streamText(stdout)
	r.Stderr, r.StderrEncoding = streamText(stderr)
}

func streamText(data []byte) (*string, string) {
	if utf8.Valid(data) {
		s := string(data)
		return &s, ""
	}
	s := base64.StdEncoding.EncodeToString(data)
	return &s, encodingBase64
}

// StdoutBytes gives the bytes of stdout, decoded when they are base64; nil
// when the command never ran. Damaged base64 is E1001.
func (r *Response) StdoutBytes() ([]byte, error) { return streamBytes(r.Stdout, r.StdoutEncoding) }

// StderrBytes is StdoutBytes for stderr.
func (r *Response) StderrBytes() ([]byte, error) { return streamBytes(r.Stderr, r.StderrEncoding) }

func streamBytes(s *string, encoding string) ([]byte, error) {
	switch {
	case s == nil:
		return nil, nil
	case encoding == "":
		return []byte(*s), nil
	case encoding != encodingBase64:
		return nil, invalid("unknown encoding %s", shown(encoding))
	}
	data, err := base64.StdEncoding.DecodeString(*s)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidValue, "decode output", err)
	}
	return data, nil
}

// Encode gives the response as one JSON document that ends with a newline, on
// one line or, pretty, indented by two spaces. Nothing is escaped for HTML.
func (r *Response) Encode(pretty bool) []byte {
	size := 4096
	for _, s := range []*string{r.Stdout, r.Stderr} {
		if s != nil {
			size += len(*s) + len(*s)/8
		}
	}
	b := appendObject(make([]byte, 0, size), &responseObject, r)
	if pretty {
		v := jsontext.Value(b)
		// What appendObject has written is JSON, which is all that Indent asks.
		_ = v.Indent(jsontext.WithIndent("  "))
		b = v
	}
	return append(b, '\n')
}

// DecodeResponse reads a response. Keys that it does not know are passed
// over, because a newer shim may report more. The error is a fault.List:
// E6002 when data is not JSON, E1001 for a value of the wrong type, E1005 for
// a key that stands twice.
func DecodeResponse(data []byte) (*Response, error) {
	r := new(Response)
	d := decoder{data: data, lenient: true}
	d.document(&responseObject, r)
	if err := d.err(); err != nil {
		return nil, err
	}
	return r, nil
}
