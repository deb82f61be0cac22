package specjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestEveryField sets every field of the specification in turn, and holds what is written and
// what is read against encoding/json.
func TestEveryField(t *testing.T) {
	fields := 0
	walk(reflect.TypeFor[specs.Spec](), nil, func(path []int) {
		fields++
		s := new(specs.Spec)
		v := reflect.ValueOf(s).Elem()
		name := ""
		for _, i := range path {
			v = inner(v)
			name += "." + v.Type().Field(i).Name
			v = v.Field(i)
		}
		fill(inner(v))
		written(t, name, s)
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(name, err)
		}
		read(t, name, text)
	})
	if fields < 200 {
		t.Errorf("only %d fields visited", fields)
	}
}

// walk visits the paths to all single values of a type.
func walk(typ reflect.Type, path []int, visit func([]int)) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		visit(path)
		return
	}
	for i := range typ.NumField() {
		walk(typ.Field(i).Type, append(path[:len(path):len(path)], i), visit)
	}
}

// inner allocates pointers and one element of slices until it is neither.
func inner(v reflect.Value) reflect.Value {
	for {
		switch v.Kind() {
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v = v.Index(0)
		default:
			return v
		}
	}
}

func fill(v reflect.Value) {
	switch {
	case v.CanInt():
		v.SetInt(-7)
	case v.CanUint():
		v.SetUint(7)
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.String:
		v.SetString("a\"\\\n\x01é<")
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), reflect.Zero(v.Type().Elem()))
	case v.Kind() == reflect.Interface:
		v.Set(reflect.ValueOf(map[string]any{"a": []any{true, "b"}}))
	}
}

// written holds a document as it is written, for people and for machines, against encoding/json.
func written(t *testing.T, name string, s *specs.Spec) {
	t.Helper()
	for _, pretty := range []bool{false, true} {
		got, err := NewWriter(0, pretty).Spec(s).Bytes()
		if err != nil {
			t.Fatal(name, err)
		}
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(name, err)
		}
		// A list that must be there is [] here, not null.
		for _, key := range []string{"names", "layerFolders"} {
			want = bytes.ReplaceAll(want, []byte(`"`+key+`":null`), []byte(`"`+key+`":[]`))
		}
		var g, w any
		if err := json.Unmarshal(got, &g); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, got)
		}
		if err := json.Unmarshal(want, &w); err != nil {
			t.Fatal(name, err)
		}
		dropEmptySets(g)
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s:\n%s\n%s", name, got, want)
		}
	}
}

// dropEmptySets removes the empty sets of capabilities, which encoding/json leaves out.
func dropEmptySets(doc any) {
	process, _ := doc.(map[string]any)["process"].(map[string]any)
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		if list, ok := set.([]any); ok && len(list) == 0 {
			delete(sets, name)
		}
	}
}

// read holds what is read of a document against encoding/json.
func read(t *testing.T, name string, text []byte) {
	t.Helper()
	for way, by := range map[string]func([]byte) (*specs.Spec, error){"read": Read, "read strictly": ReadStrictly} {
		got, err := by(text)
		if err != nil {
			t.Errorf("%s, %s: %v\n%s", name, way, err, text)
			continue
		}
		var want specs.Spec
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(name, err)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s, %s:\n%+v\n%+v", name, way, *got, want)
		}
	}
}

// TestAsRuntimesRead: unknown keys are ignored, another case counts, the later of two holds.
func TestAsRuntimesRead(t *testing.T) {
	for _, text := range []string{
		`{"extra":{"a":[1,{"b":null}]},"ociVersion":"1.2.0","linux":{"new":[],"maskedPaths":["/a"]}}`,
		`{"OCIVERSION":"1.2.0","Linux":{"MaskedPaths":["/a"],"seccomp":{"DefaultAction":"SCMP_ACT_ERRNO"}}}`,
		`{"hostname":"a","hostname":"b","process":{"cwd":"/"},"process":{"args":["x"]},"annotations":{"a":"1"},"annotations":{"b":"2"}}`,
		`{"process":null,"mounts":null,"annotations":null,"linux":{"resources":{"memory":{"limit":null}},"maskedPaths":[],"namespaces":[null]}}`,
		`{"process":{"rlimits":[{"type":"RLIMIT_CORE","hard":18446744073709551615,"soft":0}],"oomScoreAdj":-1000}}`,
		` {"ociVersion":"é😀\u0000"} ` + "\n",
		`null`,
	} {
		got, err := Read([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var want specs.Spec
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s:\n%+v\n%+v", text, *got, want)
		}
	}
}

// TestRefused: encoding/json refuses each of these too.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ text, field, message string }{
		{`{"process":{"args":"sh"}}`, "process.args", "is text, not a list"},
		{`{"process":{"args":["sh",7]}}`, "process.args[1]", "is a number, not text"},
		{`{"process":[]}`, "process", "is a list, not an object"},
		{`{"root":{"readonly":"yes"}}`, "root.readonly", "is text, not true or false"},
		{`{"process":{"user":{"uid":-1}}}`, "process.user.uid", "-1 is out of range or no whole number"},
		{`{"process":{"user":{"uid":4294967296}}}`, "process.user.uid", "4294967296 is out of range or no whole number"},
		{`{"process":{"oomScoreAdj":1.5}}`, "process.oomScoreAdj", "1.5 is out of range or no whole number"},
		{`{"linux":{"resources":{"pids":{"limit":1e3}}}}`, "linux.resources.pids.limit", "1e3 is out of range or no whole number"},
		{`{"linux":{"namespaces":[{"type":"pid"},{"type":{}}]}}`, "linux.namespaces[1].type", "is an object, not text"},
		{`{"annotations":{"a.b/c":null,"0":[]}}`, "annotations.0", "is a list, not text"},
		{`{"mounts":[[]]}`, "mounts[0]", "is a list, not an object"},
		{`{} {}`, "", "data after the document"},
		{`{}x`, "", "data after the document"},
		{`{"process":{`, "process", "the document ends too early"},
		{``, "", "the document ends too early"},
		{`[]`, "", "is a list, not an object"},
		{`{"extra":{]}`, "extra", ""},
	} {
		s, err := Read([]byte(c.text))
		var f *fault.Fault
		if s != nil || !errors.As(err, &f) || f.Code != fault.InvalidBundle {
			t.Errorf("%s: got %v, %v; want E2009", c.text, s, err)
			continue
		}
		if f.Field != c.field || c.message != "" && f.Message() != "decode config.json: "+c.message {
			t.Errorf("%s: %q: %q, want %q: %q", c.text, f.Field, f.Message(), c.field, c.message)
		}
		if json.Unmarshal([]byte(c.text), new(specs.Spec)) == nil {
			t.Errorf("encoding/json takes %s", c.text)
		}
	}
}

// TestReady: what stands ready is written in place of one object.
func TestReady(t *testing.T) {
	s := &specs.Spec{Linux: &specs.Linux{Seccomp: new(specs.LinuxSeccomp)}}
	got, err := NewWriter(0, false).Ready(s.Linux.Seccomp, `{"a":1}`).Spec(s).Bytes()
	if want := `{"ociVersion":"","linux":{"seccomp":{"a":1}}}`; err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

// FuzzRead: what is taken is what encoding/json takes, and means the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.2.0","process":{"args":["a"],"user":{"uid":1}},"mounts":[{"destination":"/","options":[]}]}`))
	f.Add([]byte(`{"linux":{"resources":{"unified":{"a":"b"},"devices":[{"allow":true,"major":1}]},"seccomp":{"syscalls":[{"names":["a"],"args":[{"value":1}]}]}},"windows":{"credentialSpec":{"a":null}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Read(data)
		var want specs.Spec
		bad := json.Unmarshal(data, &want)
		if err == nil && bad != nil {
			t.Fatalf("encoding/json says %v", bad)
		}
		if !jsontext.Value(data).IsValid() {
			return // keys that stand twice, of which encoding/json mixes the elements of lists; or no UTF-8
		}
		if err != nil && bad == nil {
			t.Fatalf("encoding/json takes it: %v", err)
		}
		if err == nil && !reflect.DeepEqual(*got, want) {
			t.Fatalf("\n%+v\n%+v", *got, want)
		}
	})
}
