package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

func TestEncodeRefusesInvalidUTF8(t *testing.T) {
	s, err := Build(request(), rootHost(func(h *Host) { h.System = []Entry{{Path: "/usr\xff"}} }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Encode(s); !errors.Is(err, &fault.Fault{Code: fault.InvalidBundle}) {
		t.Errorf("got %v", err)
	}
}

func TestWriteAndLoad(t *testing.T) {
	dir := t.TempDir()
	s, err := Build(request(someBinds), rootHost(resolved(true)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, ConfigName+".tmp")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second replaces the first, and whatever stands in the way
		if err := Write(dir, s); err != nil {
			t.Fatal(err)
		}
	}
	back, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, s) {
		t.Error("another configuration was read than written")
	}
	info, err := os.Stat(filepath.Join(dir, ConfigName))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("config.json: %v %v", info, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	if err := Write(filepath.Join(dir, "missing"), s); !errors.Is(err, &fault.Fault{Code: fault.IO}) {
		t.Errorf("missing directory: %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	cases := []struct{ name, doc, field string }{
		{"unknown", `{"ociVersion":"1.2.0","extra":1}`, "extra"},
		{"unknown below", `{"process":{"user":{"uid":0,"gid":0},"cwd":"/","capabilites":{}}}`, "process.capabilites"},
		{"unknown in a list", `{"mounts":[{"destination":"/a"},{"destination":"/b","flags":1}]}`, "mounts[1].flags"},
		{"unknown in an embedded struct", `{"linux":{"resources":{"blockIO":{"throttleReadBpsDevice":[{"major":1,"minor":2,"rate":3,"x":4}]}}}}`, "linux.resources.blockIO.throttleReadBpsDevice[0].x"},
		{"other case", `{"linux":{"MaskedPaths":[]}}`, "linux.MaskedPaths"},
		{"twice", `{"linux":{"maskedPaths":["/a"],"maskedPaths":[]}}`, "linux.maskedPaths"},
		{"twice in a map", `{"annotations":{"a":"b","a":"c"}}`, "annotations.a"},
		{"type", `{"process":{"args":"sh"}}`, "process.args"},
		{"number", `{"process":{"user":{"uid":-1}}}`, "process.user.uid"},
		{"trailing", `{} {}`, ""},
		{"cut", `{"process":{`, "process"},
		{"empty", ``, ""},
		{"list", `[]`, ""},
		{"deep", `{"annotations":` + strings.Repeat("[", 1000), "annotations"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, err := Decode([]byte(c.doc))
			var f *fault.Fault
			if s != nil || !errors.As(err, &f) || f.Code != fault.InvalidBundle {
				t.Fatalf("got %v, %v; want E2009", s, err)
			}
			if f.Field != c.field {
				t.Errorf("field %q, want %q (%v)", f.Field, c.field, err)
			}
		})
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, &fault.Fault{Code: fault.InvalidBundle}) {
		t.Errorf("missing: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, ConfigName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, &fault.Fault{Code: fault.InvalidBundle}) {
		t.Errorf("directory: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.2.0"}`))
	f.Add([]byte(`{"mounts":[{"destination":"/","options":[]}],"linux":{"resources":{"unified":{"a":"b"}}}}`))
	for _, c := range goldenCases {
		if data, err := os.ReadFile(filepath.Join("testdata", c.name+".json")); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Decode(data)
		if err != nil {
			var fl *fault.Fault
			if !errors.As(err, &fl) {
				t.Fatalf("not a fault: %v", err)
			}
			return
		}
		again, err := Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("what was accepted is refused when encoded: %v", err)
		}
	})
}
