package shim

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/capsule-run/capsule/runtime/wire"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
)

// filled gives every field of a message another value than nothing.
func filled(m proto.Message) proto.Message {
	r := m.ProtoReflect()
	for i := range r.Descriptor().Fields().Len() {
		f := r.Descriptor().Fields().Get(i)
		var v protoreflect.Value
		switch f.Kind() {
		case protoreflect.BoolKind:
			v = protoreflect.ValueOfBool(true)
		case protoreflect.StringKind:
			v = protoreflect.ValueOfString(string(f.Name()))
		case protoreflect.BytesKind:
			v = protoreflect.ValueOfBytes([]byte(f.Name()))
		case protoreflect.Int32Kind:
			v = protoreflect.ValueOfInt32(int32(-f.Number()))
		case protoreflect.Int64Kind:
			v = protoreflect.ValueOfInt64(int64(f.Number()) << 40)
		case protoreflect.EnumKind:
			v = protoreflect.ValueOfEnum(1)
		}
		if f.IsList() {
			list := r.NewField(f)
			list.List().Append(v)
			list.List().Append(protoreflect.ValueOfEnum(2))
			v = list
		}
		r.Set(f, v)
	}
	return m
}

// TestRequestsAreRead compares the requests that are read here with those that generated code
// writes: each field by its name.
func TestRequestsAreRead(t *testing.T) {
	for _, c := range []struct {
		message proto.Message
		read    func(wire.Message) any
	}{
		{new(shimv1.CreateRequest), func(m wire.Message) any { return *readCreate(m) }},
		{new(shimv1.AttachRequest), func(m wire.Message) any { return *readAttach(m) }},
		{new(shimv1.ExplainRequest), func(m wire.Message) any { return *readExplain(m) }},
		{new(shimv1.BundleRequest), func(m wire.Message) any { return *readBundle(m) }},
	} {
		for _, m := range []proto.Message{proto.Clone(c.message), filled(c.message)} {
			encoded, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			want := reflect.ValueOf(m).Elem()
			got := reflect.ValueOf(c.read(encoded))
			fields := m.ProtoReflect().Descriptor().Fields()
			if got.NumField() != fields.Len() {
				t.Errorf("%T has %d fields, not %d", got.Interface(), got.NumField(), fields.Len())
			}
			for i := range got.NumField() {
				name := strings.ReplaceAll(got.Type().Field(i).Name, "ID", "Id")
				w := want.FieldByName(strings.ToUpper(name[:1]) + name[1:])
				if !w.IsValid() {
					t.Errorf("%T has no field %s", m, name)
					continue
				}
				if text(got.Field(i)) != text(w) {
					t.Errorf("%T: %s is %v, not %v", m, name, got.Field(i), w)
				}
			}
		}
	}
}

// text is a value without its type.
func text(v reflect.Value) string {
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		return string(v.Bytes())
	}
	if v.Kind() == reflect.Slice {
		var list []string
		for i := range v.Len() {
			list = append(list, text(v.Index(i)))
		}
		return strings.Join(list, ",")
	}
	switch {
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10)
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	return v.String()
}

// TestResponsesAreWritten has generated code read the responses that are written here.
func TestResponsesAreWritten(t *testing.T) {
	n := int64(1) << 40
	zero := int64(0)
	for _, c := range []struct {
		written []byte
		want    proto.Message
	}{
		{(&stateResponse{state: "running", executionID: "id", pid: 7, created: n, request: []byte("{}")}).message(),
			&shimv1.StateResponse{State: "running", ExecutionId: "id", Pid: 7, Created: n, Request: []byte("{}")}},
		{(&statsResponse{metrics: []byte("m"), memoryBytes: &n, pids: &zero}).message(),
			&shimv1.StatsResponse{Metrics: []byte("m"), MemoryBytes: &n, Pids: &zero}},
		{(&statsResponse{metrics: []byte("m")}).message(), &shimv1.StatsResponse{Metrics: []byte("m")}},
		{append((&attachResponse{stream: streamStderr, data: []byte("data"), offset: n, time: n + 1}).head(), "data"...),
			&shimv1.AttachResponse{Stream: shimv1.Stream_STREAM_STDERR, Data: []byte("data"), Offset: n, Time: n + 1}},
		{(&attachResponse{stream: streamStdout, offset: n, pipe: 7}).head(), &shimv1.AttachResponse{Stream: shimv1.Stream_STREAM_STDOUT, Offset: n, Pipe: 7}},
		{(&attachResponse{stream: streamStdout, offset: n}).head(), &shimv1.AttachResponse{Stream: shimv1.Stream_STREAM_STDOUT, Offset: n}},
	} {
		got := c.want.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(c.written, got); err != nil || !proto.Equal(got, c.want) {
			t.Errorf("%v, not %v: %v", got, c.want, err)
		}
	}
}

// TestServiceOfTheProto finds every method of shim.proto answered.
func TestServiceOfTheProto(t *testing.T) {
	d := shimv1.File_shim_shimapi_v1_shim_proto.Services().Get(0)
	if string(d.FullName()) != serviceName {
		t.Errorf("the service is called %s", d.FullName())
	}
	s := overService(t.TempDir())
	for i := range d.Methods().Len() {
		m := d.Methods().Get(i)
		if conducted := s.stream(serviceName, string(m.Name())) != nil; conducted != m.IsStreamingClient() {
			t.Errorf("%s: conducted %v", m.Name(), conducted)
		}
		var status *wire.Status
		_, err := s.call(t.Context(), serviceName, string(m.Name()), nil)
		if known := !errors.As(err, &status) || status.Code != wire.Unimplemented; known == m.IsStreamingClient() {
			t.Errorf("%s: %v", m.Name(), err)
		}
	}
	if _, err := s.call(t.Context(), "other", "State", nil); err == nil || s.stream("other", "Attach") != nil {
		t.Error("another service is answered")
	}
}
