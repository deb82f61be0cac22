package spec

import (
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/go-json-experiment/json/jsontext"
)

// member is one key of an ordered JSON object, members the object. JSON
// Schema has no order, but people read it.
type member struct {
	key   string
	value any
}

type members []member

// The documents that Schema and Reference describe.
const (
	DocumentRequest  = "request"
	DocumentResponse = "response"
)

func tableOf(document string) (*object, error) {
	switch document {
	case DocumentRequest:
		return &requestObject, nil
	case DocumentResponse:
		return &responseObject, nil
	}
	return nil, fault.New(fault.InvalidValue, "", "no document is called "+shown(document)).
		WithHint("There are request and response.")
}

// Schema gives the JSON Schema (draft 2020-12) of "request" or "response",
// indented. Another name is E1001. A document that the decoder accepts is
// valid under the schema; the reverse does not hold, because a schema counts
// characters instead of bytes and knows nothing of duplicate keys, of clean
// paths or of fields that depend on one another.
func Schema(document string) ([]byte, error) {
	o, err := tableOf(document)
	if err != nil {
		return nil, err
	}
	s := members{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", o.title},
	}
	s = append(s, schemaObject(o, document == DocumentRequest)...)
	v := jsontext.Value(appendMembers(nil, s))
	if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
		return nil, fault.Wrap(fault.JSONSyntax, "generate the schema", err)
	}
	return append(v, '\n'), nil
}

// schemaObject describes an object. Closed ones accept no other keys.
func schemaObject(o *object, closed bool) members {
	var required []string
	properties := members{}
	for i := range o.fields {
		f := &o.fields[i]
		properties = append(properties, member{f.name, schemaField(f, f.at(emptyOwner(o)), closed)})
		if f.required {
			required = append(required, f.name)
		}
	}
	s := members{{"type", "object"}, {"properties", properties}}
	if required != nil {
		s = append(s, member{"required", required})
	}
	if closed {
		s = append(s, member{"additionalProperties", false})
	}
	return s
}

// emptyOwner gives something for the rows of o to point into.
func emptyOwner(o *object) any {
	switch o {
	case &requestObject:
		return new(Request)
	case &responseObject:
		return new(Response)
	case &stdinObject:
		return new(string)
	case &resourcesObject:
		return new(Resources)
	case &ioObject:
		return new(IOLimits)
	case &rlimitObject:
		return new(Rlimit)
	case &isolationObject:
		return new(Isolation)
	case &bindObject:
		return new(BindMount)
	case &terminationObject:
		return new(Termination)
	case &outputObject:
		return new(Output)
	case &streamObject:
		return new(StreamCount)
	case &metricsObject:
		return new(Metrics)
	case &enforcementObject:
		return new(Enforcement)
	case &denialObject:
		return new(Denial)
	case &syscallObject:
		return new(SyscallUse)
	case &timestampsObject:
		return new(Timestamps)
	case &pressureObject:
		return new(Pressure)
	case &timelineObject:
		return new(Timeline)
	case &pointObject:
		return new(Point)
	}
	return new(Error)
}

// schemaField describes the value of a field, with its meaning and default.
func schemaField(f *field, ref any, closed bool) members {
	s := members{{"description", f.doc}}
	s = append(s, schemaValue(f, ref, closed)...)
	if f.def != nil {
		s = append(s, member{"default", f.def})
	}
	return s
}

func schemaValue(f *field, ref any, closed bool) members {
	if text(ref) != nil {
		return f.schemaText(f.orNull, true)
	}
	switch ref.(type) {
	case *Resources, *Isolation, *Termination, *StreamCount, *Metrics, *Timestamps:
		return schemaObject(f.object, closed)
	case **IOLimits, **Output, **Enforcement, **Error, **Pressure, **Timeline:
		return members{{"anyOf", []any{schemaObject(f.object, closed), members{{"type", "null"}}}}}
	case *bool:
		return members{{"type", "boolean"}}
	case *int64, *uint64:
		return f.schemaNumber("integer")
	case **int64, **int:
		return f.schemaNumber([]string{"integer", "null"})
	case **float64:
		return f.schemaNumber([]string{"number", "null"})
	case **string:
		return f.schemaText(true, true)
	case *time.Time:
		return members{{"type", "string"}, {"format", "date-time"}}
	case **time.Time:
		return members{{"type", []string{"string", "null"}}, {"format", "date-time"}}
	case **Bytes:
		return members{{"anyOf", []any{
			members{{"type", "string"}, {"maxLength", int64(f.max)}}, schemaObject(f.object, closed), members{{"type", "null"}}}}}
	case *Seccomp:
		return members{{"anyOf", []any{f.schemaText(false, true), members{{"type", "object"}}}}}
	}
	return f.schemaCollection(ref, closed)
}

func (f *field) schemaCollection(ref any, closed bool) members {
	array := func(items members) members {
		s := members{{"type", "array"}, {"items", items}}
		if f.min > 0 {
			s = append(s, member{"minItems", int64(f.min)})
		}
		if f.max > 0 {
			s = append(s, member{"maxItems", int64(f.max)})
		}
		return s
	}
	dictionary := func(values members) members {
		s := members{{"type", "object"}, {"additionalProperties", values}}
		if f.max > 0 {
			s = append(s, member{"maxProperties", int64(f.max)})
		}
		return s
	}
	switch ref.(type) {
	case *[]string:
		return array(f.schemaText(false, false))
	case *[]BindMount, *[]Denial, *[]Point, *[]SyscallUse:
		return array(schemaObject(f.object, closed))
	case *map[string]string:
		return append(dictionary(f.schemaText(false, false)),
			member{"propertyNames", members{{"minLength", int64(1)}, {"maxLength", int64(f.maxKeyBytes)}}})
	case *map[string]State:
		return dictionary(f.schemaText(false, false))
	case *map[string]int64:
		return dictionary(members{{"type", "integer"}})
	case *map[string]Rlimit:
		number := members{{"type", "integer"}, {"minimum", int64(0)}}
		return append(dictionary(members{{"anyOf", []any{number, schemaObject(f.object, closed)}}}),
			member{"propertyNames", members{{"enum", rlimitNames}}})
	}
	return members{{"type", "object"}}
}

// schemaText describes a string, alone or in a collection.
func (f *field) schemaText(orNull, alone bool) members {
	s := members{{"type", "string"}}
	if orNull {
		s = members{{"type", []string{"string", "null"}}}
	}
	if f.enum != nil {
		values := make([]any, 0, len(f.enum)+1)
		for _, v := range f.enum {
			values = append(values, v)
		}
		if orNull {
			values = append(values, nil)
		}
		s = append(s, member{"enum", values})
	}
	if alone && f.min > 0 {
		s = append(s, member{"minLength", int64(1)})
	}
	if f.maxBytes > 0 {
		s = append(s, member{"maxLength", int64(f.maxBytes)})
	}
	return s
}

func (f *field) schemaNumber(kind any) members {
	s := members{{"type", kind}}
	if f.bounded() {
		s = append(s, member{"minimum", f.min})
	}
	if f.max > 0 {
		s = append(s, member{"maximum", f.max})
	}
	return s
}

// bounded says whether the lower bound of a number means something. A row
// without bounds is a measurement, which is bounded by nature.
func (f *field) bounded() bool { return f.min > 0 || f.max > 0 }

func appendMembers(b []byte, m members) []byte {
	b = append(b, '{')
	for i := range m {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, m[i].key)
		b = append(b, ':')
		b = appendSchema(b, m[i].value)
	}
	return append(b, '}')
}

// appendSchema appends what a schema consists of.
func appendSchema(b []byte, v any) []byte {
	switch v := v.(type) {
	case members:
		return appendMembers(b, v)
	case []any:
		return appendList(b, v, func(b []byte, e *any) []byte { return appendSchema(b, *e) })
	}
	return appendAny(b, v)
}
