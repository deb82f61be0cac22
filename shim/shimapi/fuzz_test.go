package shimapi

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/capsule-run/capsule/shim/layout"
)

func TestBootstrapRoundTrip(t *testing.T) {
	want := Bootstrap{Version: BootstrapVersion, ExecutionID: "0b3c7a52-8a55-4b1e-9a57-2f6c0d6f9d11", StateDir: "/run/capsule",
		Foreground: true, HoldStderr: true, OutputFiles: true, Direct: true, TimelineMS: -1, SeccompHelper: "/bin/capsule-seccomp",
		Request: []byte("{}"), Policy: everyPolicy()}
	wire, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadBootstrap(bytes.NewReader(wire))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, not %+v", got, err, want)
	}
	for n := 1; n < len(wire); n++ {
		if _, err := ReadBootstrap(bytes.NewReader(wire[:n])); err == nil {
			t.Errorf("%d of %d bytes are accepted", n, len(wire))
		}
	}
}

// everyPolicy has another value in each field.
func everyPolicy() *Policy {
	p := new(Policy)
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Bool:
			f.SetBool(true)
		default:
			f.Set(reflect.ValueOf([]string{v.Type().Field(i).Name, "", "b"}))
		}
	}
	return p
}

// TestPolicyIsThere: a policy that says nothing is not none.
func TestPolicyIsThere(t *testing.T) {
	for _, want := range []*Policy{nil, {}, {Matched: true}} {
		if got, err := readPolicy(want.encode()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v, not %+v", got, err, want)
		}
	}
}

// FuzzReadBootstrap: what a shim reads first is refused or survives a round trip.
func FuzzReadBootstrap(f *testing.F) {
	good, err := Bootstrap{Version: BootstrapVersion, ExecutionID: "0b3c7a52-8a55-4b1e-9a57-2f6c0d6f9d11", StateDir: "/run/capsule", Foreground: true, Policy: everyPolicy()}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"version":1,"policy":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ReadBootstrap(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := ReadBootstrap(bytes.NewReader(again)); err != nil || !reflect.DeepEqual(same, b) {
			t.Errorf("what was accepted is %+v, %v when encoded, not %+v", same, err, b)
		}
	})
}

// FuzzReadRecord: a record is of the execution in whose directory it lies, or
// it is none.
func FuzzReadRecord(f *testing.F) {
	const id = "0b3c7a52-8a55-4b1e-9a57-2f6c0d6f9d11"
	f.Add([]byte(`{"version":1,"execution_id":"` + id + `","created":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"version":1,"execution_id":"../../etc","created":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := layout.Dir(filepath.Join(t.TempDir(), id))
		if err := os.Mkdir(string(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir.Record(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := ReadRecord(dir); err == nil && r.ExecutionID != id {
			t.Errorf("accepted %q", r.ExecutionID)
		}
	})
}
