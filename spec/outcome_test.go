package spec_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

var created = time.Date(2026, 1, 2, 3, 4, 5, 60, time.FixedZone("elsewhere", 3600))

// finished is a response with every field set.
func finished() *spec.Response {
	r := &spec.Response{
		ExecutionID: "0198c0de-0000-7000-8000-000000000000",
		Status:      spec.StatusKilled,
		Termination: spec.Termination{Reason: spec.ReasonOOM},
		Signal:      ptr(9),
		Output:      &spec.Output{Stdout: spec.StreamCount{BytesTotal: 1 << 30, BytesKept: 6, Truncated: true}},
		Metrics: spec.Metrics{
			WallTimeMS: ptr(12.345), CPUTimeMS: ptr(3.0), UserTimeMS: ptr(1e-3), KernelTimeMS: ptr(1e21),
			MaxMemoryBytes: ptr(int64(268435456)), MaxPids: ptr(int64(3)), OOMKills: ptr(int64(1)),
			StartupUS: ptr(int64(1300)), StartupPhases: map[string]int64{"clone": 300, "bundle": 100},
			Pressure: &spec.Pressure{CPUSomeMS: ptr(1.5), MemorySomeMS: ptr(0.0), IOFullMS: ptr(2.25)},
		},
		Timeline: &spec.Timeline{IntervalMS: 200, Points: []spec.Point{
			{AtMS: 200, MemoryBytes: ptr(int64(1 << 20)), CPUTimeMS: ptr(12.5), Pids: ptr(int64(2))}, {AtMS: 400}}},
		Enforcement: &spec.Enforcement{
			Walls:         map[string]spec.State{spec.WallSeccomp: spec.Enforced, spec.WallTimeNamespace: spec.Absent},
			Limits:        map[string]spec.State{spec.LimitMemory: spec.Degraded},
			CgroupVersion: "v2", PolicyHash: "ab",
		},
		Denials: []spec.Denial{{Kind: "syscall", Name: "mount", Count: 2, Detail: "EPERM"}, {Kind: "path", Name: "/x", Count: 1}},
		Timestamps: spec.Timestamps{
			Created: created.UTC(), Started: ptr(created.UTC().Add(time.Millisecond)), Completed: ptr(created.UTC().Add(time.Second)),
		},
		Warnings: []string{"no swap accounting"},
		Error: &spec.Error{Code: "E4002", Message: "the limit of 256MiB was reached", Hint: "Raise it.",
			Details: map[string]any{"limit": float64(268435456), "list": []any{"a", true, nil}}},
	}
	r.SetOutput([]byte("<ok>&\u2028\n"), []byte{0xff, 0, 1})
	return r
}

func TestResponseGolden(t *testing.T) {
	golden(t, "testdata/response.json", finished().Encode(true))
	golden(t, "testdata/refused.json", spec.Refused("id", refusal(t), created).Encode(true))
}

// refusal is what the decoder says about a request with three problems.
func refusal(t testing.TB) error {
	_, err := spec.DecodeRequest([]byte(`{"comand":["x"],"timeout_ms":0}`))
	if err == nil {
		t.Fatal("accepted")
	}
	return err
}

func TestResponseRoundTrip(t *testing.T) {
	for name, r := range map[string]*spec.Response{
		"finished": finished(),
		"refused":  spec.Refused("id", errors.New("no"), created),
		"running":  {ExecutionID: "id", Status: spec.StatusRunning, Timestamps: spec.Timestamps{Created: created.UTC()}},
	} {
		for _, pretty := range []bool{false, true} {
			b := r.Encode(pretty)
			again, err := spec.DecodeResponse(b)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !reflect.DeepEqual(again, r) {
				t.Errorf("%s:\nhave %+v\nwant %+v", name, again, r)
			}
			if !pretty && strings.Count(string(b), "\n") != 1 || b[len(b)-1] != '\n' {
				t.Errorf("%s: not one line: %q", name, b)
			}
		}
	}
}

// TestResponseMatchesEncodingJSON holds the hand-written encoder against the
// reflection of the standard library.
func TestResponseMatchesEncodingJSON(t *testing.T) {
	var have, want map[string]any
	standard, err := json.Marshal(finished())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(json.Unmarshal(standard, &want), json.Unmarshal(finished().Encode(false), &have)); err != nil {
		t.Fatal(err)
	}
	// The standard library cuts the trailing zeros of times.
	delete(have, "timestamps")
	delete(want, "timestamps")
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %v\nwant %v", have, want)
	}
}

func TestDecodeResponseIsLenient(t *testing.T) {
	r, err := spec.DecodeResponse([]byte(`{"execution_id":"a","future":{"a":[1]},"status":"success","termination":{"reason":"exited"},"error":null,"exit_code":0}`))
	if err != nil || r.ExecutionID != "a" || *r.ExitCode != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{"", "null", "[]", `{"exit_code":"0"}`, `{"timestamps":{"created":"yesterday"}}`, `{"error":{"details":[]}}`, `{"status":1}`} {
		if r, err := spec.DecodeResponse([]byte(bad)); err == nil {
			t.Errorf("%s is accepted: %+v", bad, r)
		}
	}
}

func TestOutputBytes(t *testing.T) {
	r := finished()
	stdout, err1 := r.StdoutBytes()
	stderr, err2 := r.StderrBytes()
	if err := errors.Join(err1, err2); err != nil || string(stdout) != "<ok>&\u2028\n" || string(stderr) != "\xff\x00\x01" {
		t.Errorf("%q %q %v", stdout, stderr, err)
	}
	r.Stderr = ptr("!")
	if _, err := r.StderrBytes(); !errors.Is(err, &fault.Fault{Code: fault.InvalidValue}) {
		t.Error(err)
	}
	r.StderrEncoding = "base32"
	if _, err := r.StderrBytes(); !errors.Is(err, &fault.Fault{Code: fault.InvalidValue}) {
		t.Error(err)
	}
	if b, err := new(spec.Response).StdoutBytes(); b != nil || err != nil {
		t.Error("output out of nothing")
	}
	r.SetOutput(nil, nil)
	if r.Stdout == nil || *r.Stdout != "" || r.StderrEncoding != "" {
		t.Error("a command that wrote nothing has no output")
	}
}

// uncomparable is an error that panics when it is compared.
type uncomparable []string

func (u uncomparable) Error() string { return strings.Join(u, " ") }

func TestErrorFrom(t *testing.T) {
	deep := fault.Wrap(fault.Filesystem, "mount /proc", syscall.EPERM).WithField("mounts[3]").WithPath("/proc")
	deep.Details = map[string]any{"step": 3}
	for name, c := range map[string]struct {
		err  error
		want *spec.Error
	}{
		"nil": {nil, nil},
		"fault": {fmt.Errorf("launch: %w", deep), &spec.Error{Code: "E2004", Message: "mount /proc: operation not permitted",
			Hint: fault.Filesystem.Info().Hint, Details: map[string]any{"step": 3, "field": "mounts[3]", "path": "/proc"}}},
		"plain":        {errors.New("odd"), &spec.Error{Code: "E6001", Message: "odd", Hint: fault.IO.Info().Hint}},
		"uncomparable": {uncomparable{"a", "b"}, &spec.Error{Code: "E6001", Message: "a b", Hint: fault.IO.Info().Hint}},
		"errno": {&os.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT},
			&spec.Error{Code: "E6003", Message: "open /x: no such file or directory", Hint: fault.SystemCall.Info().Hint}},
		"empty list": {fault.List{}, &spec.Error{Code: "E6001", Hint: fault.IO.Info().Hint, Message: fault.IO.Info().Name}},
		"list": {fmt.Errorf("run: %w", fault.List{fault.New(fault.OutOfRange, "", "0 is low").WithField("/a"), fault.New(fault.MissingField, "", "gone").WithHint("add")}),
			&spec.Error{Code: "E1003", Message: "/a: 0 is low (and 1 more problem)", Hint: fault.OutOfRange.Info().Hint,
				Details: map[string]any{"problems": []any{
					map[string]any{"code": "E1003", "pointer": "/a", "message": "0 is low", "hint": fault.OutOfRange.Info().Hint},
					map[string]any{"code": "E1002", "pointer": "", "message": "gone", "hint": "add"},
				}}}},
	} {
		if have := spec.ErrorFrom(c.err); !reflect.DeepEqual(have, c.want) {
			t.Errorf("%s:\nhave %+v\nwant %+v", name, have, c.want)
		}
	}
}

// TestDetailsOfAnyType covers values that only encoding/json knows.
func TestDetailsOfAnyType(t *testing.T) {
	r := spec.Refused("id", nil, created)
	r.Error = &spec.Error{Details: map[string]any{
		"struct": struct{ A string }{"<b>"}, "uint": uint8(7), "func": func() {}, "strings": []string{"x"}, "int64": int64(5), "nan": nan(),
	}}
	have := string(r.Encode(false))
	want := `"details":{"func":null,"int64":5,"nan":null,"strings":["x"],"struct":{"A":"<b>"},"uint":7}`
	if !strings.Contains(have, want) {
		t.Error(have)
	}
}

func BenchmarkEncodeResponse(b *testing.B) {
	r := finished()
	b.ReportAllocs()
	for b.Loop() {
		r.Encode(false)
	}
}
