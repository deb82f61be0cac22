package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, document string) *spec.Request {
	t.Helper()
	r, err := spec.DecodeRequest([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ptr[T any](v T) *T { return &v }

// TestDefaults pins every default of the contract.
func TestDefaults(t *testing.T) {
	want := &spec.Request{
		Command:     []string{"true"},
		Environment: map[string]string{},
		TimeoutMS:   30000,
		GraceMS:     2000,
		Labels:      map[string]string{},
		Resources: spec.Resources{
			MemoryBytes: 268435456, CPUShares: 1024, MaxOutputBytes: 1048576,
			OutputPolicy: spec.OutputTruncate, MaxPids: 100, DiskBytes: 67108864,
			Rlimits: map[string]spec.Rlimit{
				"core": {}, "nofile": {Soft: 1024, Hard: 1024},
				"nproc": {Soft: 102, Hard: 102}, "fsize": {Soft: 67108864 + 65536, Hard: 67108864 + 65536},
			},
		},
		Isolation: spec.Isolation{
			Backend: spec.BackendNamespace, ReadonlyPaths: []string{}, WritablePaths: []string{},
			BindMounts: []spec.BindMount{}, WorkingDirectory: "/workspace", User: "1000:1000",
			Hostname: "capsule", Seccomp: spec.Seccomp{Name: "default"}, AllowDegraded: []string{}, Require: []string{}, Init: true,
		},
	}
	if have := decode(t, `{"command":["true"]}`); !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
}

func TestEveryField(t *testing.T) {
	want := &spec.Request{
		Command:     []string{"/bin/sh", "-c", "cat; echo \"$GREETING\" <>&"},
		Environment: map[string]string{"GREETING": "grüß\ngott", "_A1": "", "PATH": "/usr/bin"},
		Stdin:       ptr(spec.Bytes{0, 0xff, 0x10}),
		TimeoutMS:   30000,
		Labels:      map[string]string{"app.example/name": "a b", "n": ""},
		Resources: spec.Resources{
			MemoryBytes: 1048576, CPUShares: 2, CPUQuota: ptr(0.5), CPUTimeMS: ptr(int64(1)),
			OutputPolicy: spec.OutputTail, MaxPids: 32768, DiskBytes: 65536,
			IO: &spec.IOLimits{ReadBytesPerSecond: ptr(int64(1000)), WriteOpsPerSecond: ptr(int64(9223372036854775807))},
			Rlimits: map[string]spec.Rlimit{
				"nofile": {Soft: 64, Hard: 64}, "stack": {Soft: 8388608, Hard: 18446744073709551615}, "core": {Soft: 1, Hard: 1},
				"nproc": {Soft: 32770, Hard: 32770}, "fsize": {Soft: 131072, Hard: 131072},
			},
		},
		Isolation: spec.Isolation{
			Backend: spec.BackendProcess, Network: true,
			ReadonlyPaths: []string{"/data/in", "/data/..x"}, WritablePaths: []string{"/devices", "/data/in/out"},
			BindMounts: []spec.BindMount{
				{Source: "/srv/a", Destination: "/a", Readonly: true}, {Source: "/srv/a", Destination: "/b"},
			},
			WorkingDirectory: "/", Rootfs: ptr("/srv/root"), User: "0:65533", Hostname: "A-1.example",
			Seccomp:       spec.Seccomp{Custom: json.RawMessage(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`)},
			AllowDegraded: []string{"time_namespace", "io", "rlimits"}, Require: []string{"rlimit_as"},
		},
	}
	have := decode(t, string(read(t, "testdata/full.json")))
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
	resolved(t, have)
}

// resolved checks that r crosses a process boundary unchanged, by the fast
// path and by the strict one.
func resolved(t testing.TB, r *spec.Request) {
	t.Helper()
	encoded := r.Encode()
	for name, decode := range map[string]func([]byte) (*spec.Request, error){
		"DecodeResolved": spec.DecodeResolved, "DecodeRequest": spec.DecodeRequest,
	} {
		again, err := decode(encoded)
		if len(encoded) > spec.MaxDocumentBytes && name == "DecodeRequest" {
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, encoded)
		}
		if !reflect.DeepEqual(again, r) {
			t.Fatalf("%s:\nhave %+v\nwant %+v", name, again, r)
		}
	}
}

// TestEncodeGolden pins the bytes of a resolved request.
func TestEncodeGolden(t *testing.T) {
	golden(t, "testdata/full.resolved.json", decode(t, string(read(t, "testdata/full.json"))).Encode())
}

// golden compares with a file; CAPSULE_GOLDEN=write writes it.
func golden(t *testing.T, name string, have []byte) {
	t.Helper()
	if os.Getenv("CAPSULE_GOLDEN") == "write" {
		if err := os.WriteFile(name, have, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, name); !bytes.Equal(have, want) {
		t.Errorf("%s differs; CAPSULE_GOLDEN=write accepts this:\n%s", name, have)
	}
}

func TestDecodeOverBase(t *testing.T) {
	base := spec.Default()
	if err := base.ApplyProfile("high-security"); err != nil {
		t.Fatal(err)
	}
	base.Environment = map[string]string{"A": "1"}
	r, err := spec.DecodeOver(base, []byte(`{"command":["x"],"timeout_ms":77,"resources":{"max_pids":9},"isolation":{"seccomp":"network"}}`))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case r.TimeoutMS != 77 || r.Resources.MaxPids != 9 || r.Isolation.Seccomp.Name != "network":
		t.Errorf("the request does not win: %+v", r)
	case r.Resources.MemoryBytes != 64<<20 || r.Resources.MaxOutputBytes != 64<<10 || r.Environment["A"] != "1":
		t.Errorf("the profile is lost: %+v", r)
	case r.Resources.Rlimits["nproc"] != spec.Rlimit{Soft: 11, Hard: 11}:
		t.Errorf("nproc does not follow max_pids: %+v", r.Resources.Rlimits)
	case base.TimeoutMS != 10000 || len(base.Resources.Rlimits) != 0 || len(base.Command) != 0:
		t.Errorf("the base was changed: %+v", base)
	}
}

func TestSyntaxOffset(t *testing.T) {
	_, err := spec.DecodeRequest([]byte(`{"command": [tru]}`))
	var list fault.List
	if !errors.As(err, &list) || list[0].Code != fault.JSONSyntax {
		t.Fatal(err)
	}
	if offset, ok := list[0].Details["offset"].(int64); !ok || offset < 13 || offset > 16 {
		t.Errorf("details %v", list[0].Details)
	}
	if !strings.Contains(err.Error(), "byte 1") {
		t.Error(err)
	}
}

// TestProblemsAreBounded makes sure that a hostile document does not get an
// answer of its own size.
func TestProblemsAreBounded(t *testing.T) {
	document := `{"command":["x"]` + strings.Repeat(`,"u":0`, 10000) + `,"` + strings.Repeat("k", 100000) + `":1}`
	_, err := spec.DecodeRequest([]byte(document))
	var list fault.List
	if !errors.As(err, &list) || len(list) > 300 {
		t.Errorf("%d problems", len(list))
	}
	if len(err.Error()) > 100000 {
		t.Errorf("%d bytes of message", len(err.Error()))
	}
}

// TestDecodeResolvedDamaged cuts and changes a document at every byte.
func TestDecodeResolvedDamaged(t *testing.T) {
	whole := decode(t, string(read(t, "testdata/full.json"))).Encode()
	for i := range whole[:len(whole)-1] {
		if _, err := spec.DecodeResolved(whole[:i]); err == nil {
			t.Fatalf("the first %d bytes are accepted", i)
		}
		changed := bytes.Clone(whole)
		for _, c := range []byte(`"{[0,`) {
			changed[i] = c
			_, _ = spec.DecodeResolved(changed)
		}
	}
}

func BenchmarkDecodeRequest(b *testing.B) {
	document := read(b, "testdata/full.json")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := spec.DecodeRequest(document); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeTooLarge(b *testing.B) {
	document := bytes.Repeat([]byte(" "), 100e6)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := spec.DecodeRequest(document); err == nil {
			b.Fatal("accepted")
		}
	}
}
