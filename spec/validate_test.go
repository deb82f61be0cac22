package spec_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func nan() float64 { return math.NaN() }

// TestValidateFlagBuilt covers what only Go code can put into a request.
func TestValidateFlagBuilt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*spec.Request)
		want   []string
	}{
		"valid":            {func(*spec.Request) {}, nil},
		"nil collections":  {func(r *spec.Request) { r.Environment, r.Labels, r.Isolation.ReadonlyPaths = nil, nil, nil }, nil},
		"no command":       {func(r *spec.Request) { r.Command = nil }, []string{"E1002 /command"}},
		"argument":         {func(r *spec.Request) { r.Command = []string{"a", "\xff"} }, []string{"E1001 /command/1"}},
		"variable":         {func(r *spec.Request) { r.Environment = map[string]string{"A": "\xff", "\xff": ""} }, []string{"E1001 /environment/A", "E1001 /environment/\xff"}},
		"NaN":              {func(r *spec.Request) { r.Resources.CPUQuota = ptr(nan()) }, []string{"E1001 /resources/cpu_quota"}},
		"infinity":         {func(r *spec.Request) { r.Resources.CPUQuota = ptr(math.Inf(1)) }, []string{"E1001 /resources/cpu_quota"}},
		"seccomp nothing":  {func(r *spec.Request) { r.Isolation.Seccomp = spec.Seccomp{} }, []string{"E1001 /isolation/seccomp"}},
		"seccomp both":     {func(r *spec.Request) { r.Isolation.Seccomp.Custom = json.RawMessage(`{}`) }, []string{"E1001 /isolation/seccomp"}},
		"seccomp no JSON":  {func(r *spec.Request) { r.Isolation.Seccomp = spec.Seccomp{Custom: json.RawMessage(`{`)} }, []string{"E1001 /isolation/seccomp"}},
		"seccomp a string": {func(r *spec.Request) { r.Isolation.Seccomp = spec.Seccomp{Custom: json.RawMessage(`"x"`)} }, []string{"E1001 /isolation/seccomp"}},
		"seccomp long": {func(r *spec.Request) {
			r.Isolation.Seccomp = spec.Seccomp{Custom: json.RawMessage(`{"a":"` + strings.Repeat("a", 1<<20) + `"}`)}
		}, []string{"E1003 /isolation/seccomp"}},
		"stdin":     {func(r *spec.Request) { b := make(spec.Bytes, spec.MaxStdinBytes+1); r.Stdin = &b }, []string{"E1003 /stdin"}},
		"label key": {func(r *spec.Request) { r.Labels = map[string]string{strings.Repeat("a", 129): "", "-a": ""} }, []string{"E1001 /labels/-a", "E1003 /labels/" + strings.Repeat("a", 129)}},
		"all": {func(r *spec.Request) { *r = spec.Request{} }, []string{"E1002 /command", "E1003 /timeout_ms", "E1003 /resources/memory_bytes",
			"E1003 /resources/cpu_shares", "E1001 /resources/output_policy", "E1003 /resources/max_pids", "E1003 /resources/disk_bytes",
			"E1001 /isolation/backend", "E1006 /isolation/working_directory", "E1001 /isolation/user", "E1001 /isolation/hostname", "E1001 /isolation/seccomp"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := spec.Default()
			r.Command = []string{"true"}
			c.change(r)
			var have []string
			var list fault.List
			if err := r.Validate(); errors.As(err, &list) {
				for _, f := range list {
					have = append(have, string(f.Code)+" "+f.Field)
				}
			}
			if !slices.Equal(have, c.want) {
				t.Errorf("have %q\nwant %q", have, c.want)
			}
		})
	}
}

// TestAcceptedBounds holds that both ends of each range are inside it.
func TestAcceptedBounds(t *testing.T) {
	for _, fields := range []string{
		`"timeout_ms":1,"grace_ms":0`, `"timeout_ms":86400000,"grace_ms":60000`,
		`"resources":{"memory_bytes":1048576,"cpu_shares":2,"cpu_quota":0.01,"max_output_bytes":0,"max_pids":1,"disk_bytes":65536}`,
		`"resources":{"cpu_shares":262144,"cpu_quota":8192,"max_output_bytes":1073741824,"max_pids":32768,"disk_bytes":1099511627776}`,
		`"resources":{"cpu_quota":null,"cpu_time_ms":null,"io":null},"stdin":null,"isolation":{"rootfs":null}`,
		`"isolation":{"user":"0"}`, `"isolation":{"user":"65533:0"}`, `"isolation":{"seccomp":{}}`,
		`"isolation":{"hostname":"` + strings.Repeat("a", 62) + `.b"}`, `"isolation":{"working_directory":"/processes"}`,
		`"isolation":{"readonly_paths":["/` + strings.Repeat("a", 4095) + `","/procs","/...","/a b"]}`,
		`"stdin":"","environment":{"_":"\u0001"}`, `"stdin":{"base64":""}`, `"stdin":{"base64":"AP8Q\nAA=="}`,
	} {
		decode(t, `{"command":["true",""],`+fields+`}`)
	}
	long := make([]string, 1000)
	for i := range long {
		long[i] = strings.Repeat("a", 1000)
	}
	long[999] = strings.Repeat("a", 131072)
	encoded, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	decode(t, `{"command":`+string(encoded)+`}`)
}

func TestParseUser(t *testing.T) {
	for s, want := range map[string][2]uint32{"0": {0, 0}, "1000": {1000, 1000}, "1000:0": {1000, 0}, "65533:65533": {65533, 65533}} {
		if uid, gid, err := spec.ParseUser(s); err != nil || uid != want[0] || gid != want[1] {
			t.Errorf("%s: %d:%d %v", s, uid, gid, err)
		}
	}
}

func TestProfiles(t *testing.T) {
	names := []string{"ai-agent", "development", "production", "high-security", "python-data-science"}
	for i, p := range spec.Profiles() {
		if p.Name != names[i] || p.Description == "" {
			t.Errorf("profile %d is %+v", i, p)
		}
		r := spec.Default()
		r.Command = []string{"true"}
		if err := errors.Join(r.ApplyProfile(p.Name), r.Validate()); err != nil {
			t.Error(err)
		}
	}
	r := spec.Default()
	if err := r.ApplyProfile("development"); err != nil || r.TimeoutMS != 120000 || !r.Isolation.Network || r.Resources.MemoryBytes != 2<<30 || r.Resources.MaxOutputBytes != 1<<20 {
		t.Errorf("%+v %v", r, err)
	}
	err := r.ApplyProfile("ai_agent")
	if !errors.Is(err, &fault.Fault{Code: fault.UnknownProfile}) || !strings.Contains(err.Error(), strings.Join(names, ", ")) {
		t.Error(err)
	}
	if hint := fault.From(err, "").Hint; hint != "Did you mean `ai-agent`?" {
		t.Error(hint)
	}
}

func TestCompleteKeepsWhatIsNamed(t *testing.T) {
	own := map[string]spec.Rlimit{"nproc": {Soft: 5, Hard: 6}, "stack": {Soft: 1, Hard: 1}}
	r := spec.Default()
	r.Resources.Rlimits = own
	r.Resources.MaxPids, r.Resources.DiskBytes = -5, -5
	r.Complete()
	want := map[string]spec.Rlimit{"nproc": {Soft: 5, Hard: 6}, "stack": {Soft: 1, Hard: 1}, "core": {}, "nofile": {Soft: 1024, Hard: 1024}, "fsize": {Soft: 65536, Hard: 65536}}
	if !reflect.DeepEqual(r.Resources.Rlimits, want) {
		t.Errorf("%+v", r.Resources.Rlimits)
	}
	if len(own) != 2 {
		t.Error("the caller's map was changed")
	}
}

// TestFormsInOtherDocuments sends the values with two forms through
// encoding/json.
func TestFormsInOtherDocuments(t *testing.T) {
	type document struct {
		A, B *spec.Bytes
		C, D spec.Seccomp
		E, F spec.Rlimit
	}
	var d document
	source := `{"A":"x","B":{"base64":"/w=="},"C":"strict","D":{"a":[1]},"E":5,"F":{"soft":1,"hard":2}}`
	if err := json.Unmarshal([]byte(source), &d); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d)
	if want := strings.Replace(source, `"E":5`, `"E":{"soft":5,"hard":5}`, 1); err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	for _, bad := range []string{`{"A":1}`, `{"A":{"base64":"?"}}`, `{"C":1}`, `{"E":"x"}`, `{"F":{"soft":1}}`, `{"F":{"soft":1,"hard":2,"x":3}}`} {
		if err := json.Unmarshal([]byte(bad), new(document)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	kept := spec.Bytes("kept")
	if err := kept.UnmarshalJSON([]byte("null")); err != nil || string(kept) != "kept" {
		t.Errorf("null gives %q, %v", kept, err)
	}
}
