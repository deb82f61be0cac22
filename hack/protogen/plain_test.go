package main

import (
	"fmt"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/capsule-run/capsule/runtime/wire"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
	shimplain "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	supervisorplain "github.com/capsule-run/capsule/supervisor/api/v1/plain"
)

// message is a plain one.
type message interface {
	Encode() wire.Message
	Decode(wire.Message)
}

// one is a value of a field that no other field has.
func one(f protoreflect.FieldDescriptor, n int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprint(f.Name(), n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(fmt.Append(nil, f.Name(), n))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-int32(f.Number()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(f.Number()) << 40)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.Number()) << 27)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(f.Number()) << 59)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n))
	}
	panic(f.Kind())
}

// filled gives every field of a message, and of those in it, a value.
func filled(m protoreflect.Message) protoreflect.Message {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("empty").MapKey(), protoreflect.ValueOfString(""))
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			filled(m.Mutable(f).List().AppendMutable().Message())
			m.Mutable(f).List().AppendMutable()
		case f.IsList():
			m.Mutable(f).List().Append(one(f, 1))
			m.Mutable(f).List().Append(one(f, 2))
		case f.Kind() == protoreflect.MessageKind:
			filled(m.Mutable(f).Message())
		default:
			m.Set(f, one(f, 1))
		}
	}
	return m
}

// TestPlainMessages holds each plain message, empty and with all its fields, to what protobuf's
// own code writes and reads.
func TestPlainMessages(t *testing.T) {
	pairs := []struct {
		real  proto.Message
		plain message
	}{
		{new(shimv1.CreateRequest), new(shimplain.CreateRequest)}, {new(shimv1.CreateResponse), new(shimplain.CreateResponse)},
		{new(shimv1.StartRequest), new(shimplain.StartRequest)}, {new(shimv1.StartResponse), new(shimplain.StartResponse)},
		{new(shimv1.AttachRequest), new(shimplain.AttachRequest)}, {new(shimv1.AttachResponse), new(shimplain.AttachResponse)},
		{new(shimv1.WriteStdinRequest), new(shimplain.WriteStdinRequest)}, {new(shimv1.WriteStdinResponse), new(shimplain.WriteStdinResponse)},
		{new(shimv1.WaitRequest), new(shimplain.WaitRequest)}, {new(shimv1.WaitResponse), new(shimplain.WaitResponse)},
		{new(shimv1.KillRequest), new(shimplain.KillRequest)}, {new(shimv1.KillResponse), new(shimplain.KillResponse)},
		{new(shimv1.StateRequest), new(shimplain.StateRequest)}, {new(shimv1.StateResponse), new(shimplain.StateResponse)},
		{new(shimv1.StatsRequest), new(shimplain.StatsRequest)}, {new(shimv1.StatsResponse), new(shimplain.StatsResponse)},
		{new(shimv1.ExplainRequest), new(shimplain.ExplainRequest)}, {new(shimv1.ExplainResponse), new(shimplain.ExplainResponse)},
		{new(shimv1.BundleRequest), new(shimplain.BundleRequest)}, {new(shimv1.BundleResponse), new(shimplain.BundleResponse)},
		{new(shimv1.ShutdownRequest), new(shimplain.ShutdownRequest)}, {new(shimv1.ShutdownResponse), new(shimplain.ShutdownResponse)},

		{new(supervisorv1.Fault), new(supervisorplain.Fault)},
		{new(supervisorv1.StartRequest), new(supervisorplain.StartRequest)}, {new(supervisorv1.StartResponse), new(supervisorplain.StartResponse)},
		{new(supervisorv1.RunRequest), new(supervisorplain.RunRequest)}, {new(supervisorv1.RunResponse), new(supervisorplain.RunResponse)},
		{new(supervisorv1.WaitRequest), new(supervisorplain.WaitRequest)}, {new(supervisorv1.WaitResponse), new(supervisorplain.WaitResponse)},
		{new(supervisorv1.KillRequest), new(supervisorplain.KillRequest)}, {new(supervisorv1.KillResponse), new(supervisorplain.KillResponse)},
		{new(supervisorv1.AttachRequest), new(supervisorplain.AttachRequest)}, {new(supervisorv1.AttachResponse), new(supervisorplain.AttachResponse)},
		{new(supervisorv1.Summary), new(supervisorplain.Summary)},
		{new(supervisorv1.ListRequest), new(supervisorplain.ListRequest)}, {new(supervisorv1.ListResponse), new(supervisorplain.ListResponse)},
		{new(supervisorv1.InspectRequest), new(supervisorplain.InspectRequest)}, {new(supervisorv1.InspectResponse), new(supervisorplain.InspectResponse)},
		{new(supervisorv1.StatsRequest), new(supervisorplain.StatsRequest)}, {new(supervisorv1.StatsResponse), new(supervisorplain.StatsResponse)},
		{new(supervisorv1.Stats), new(supervisorplain.Stats)},
		{new(supervisorv1.EventsRequest), new(supervisorplain.EventsRequest)}, {new(supervisorv1.EventsResponse), new(supervisorplain.EventsResponse)},
		{new(supervisorv1.RemoveRequest), new(supervisorplain.RemoveRequest)}, {new(supervisorv1.RemoveResponse), new(supervisorplain.RemoveResponse)},
		{new(supervisorv1.PruneRequest), new(supervisorplain.PruneRequest)}, {new(supervisorv1.PruneResponse), new(supervisorplain.PruneResponse)},
		{new(supervisorv1.InfoRequest), new(supervisorplain.InfoRequest)}, {new(supervisorv1.InfoResponse), new(supervisorplain.InfoResponse)},
		{new(supervisorv1.HealthRequest), new(supervisorplain.HealthRequest)}, {new(supervisorv1.HealthResponse), new(supervisorplain.HealthResponse)},
	}
	seen := map[protoreflect.FullName]bool{}
	for _, p := range pairs {
		seen[p.real.ProtoReflect().Descriptor().FullName()] = true
		again(t, p.real, p.plain)
		again(t, filled(p.real.ProtoReflect()).Interface(), p.plain)
		if v := reflect.ValueOf(p.plain).Elem(); v.NumField() > 0 {
			for i := range v.NumField() {
				if v.Field(i).IsZero() {
					t.Errorf("%T.%s is not read", p.plain, v.Type().Field(i).Name)
				}
			}
		}
	}
	for _, f := range []protoreflect.FileDescriptor{shimv1.File_shim_shimapi_v1_shim_proto, supervisorv1.File_supervisor_api_v1_supervisor_proto} {
		for i := range f.Messages().Len() {
			if name := f.Messages().Get(i).FullName(); !seen[name] {
				t.Errorf("%s is not compared", name)
			}
		}
	}
}

// again sends a message through its plain form.
func again(t *testing.T, m proto.Message, p message) {
	t.Helper()
	sent, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	p.Decode(sent)
	back := m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(p.Encode(), back); err != nil || !proto.Equal(m, back) {
		t.Errorf("%T:\nsent %v\ngot  %v (%v)", p, m, back, err)
	}
}
