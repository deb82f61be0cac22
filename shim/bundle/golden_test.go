package bundle

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

var goldenCases = []struct {
	name string
	req  *spec.Request
	host Host
}{
	{"default", request(), rootHost()},
	{"rootless", request(), rootlessHost()},
	{"network", request(func(r *spec.Request) { r.Isolation.Network = true }), rootHost()},
	{"binds", request(someBinds), rootHost(resolved(false))},
	{"binds-idmap", request(someBinds), rootHost(resolved(true))},
	{"binds-rootless", request(someBinds), rootlessHost(resolved(false))},
	{"rootfs", request(someRootfs), rootHost(alpine)},
	{"rootfs-rootless", request(someRootfs), rootlessHost(alpine)},
	{"rootfs-no-etc", request(someRootfs), rootHost(alpine, func(h *Host) {
		h.RootfsIDMap, h.RootfsVarTmp = false, false
		h.RootfsEntries = []Entry{{Path: "/app"}, {Path: "/var"}}
	})},
	{"user-0", request(func(r *spec.Request) { r.Isolation.User = "0" }), rootHost()},
	{"user-nobody", request(func(r *spec.Request) { r.Isolation.User = "65534:5" }), rootHost()},
	{"strict", request(), rootHost(func(h *Host) { h.Seccomp = strictFilter() })},
	{"no-init", request(func(r *spec.Request) { r.Isolation.Init = false; r.Isolation.Hostname = "judge-7" }), rootHost()},
	{"tiny-memory", request(func(r *spec.Request) { r.Resources.MemoryBytes = 1 << 20 }), rootHost()},
	{"split-usr", request(), rootHost(func(h *Host) {
		h.System = []Entry{{Path: "/usr"}, {Path: "/bin"}, {Path: "/sbin"}, {Path: "/lib"}, {Path: "/lib64"}}
		h.TimeNamespace, h.CgroupNamespace = false, false
	})},
	{"jvm", request(), rootHost(func(h *Host) { h.Etc = append(h.Etc, Entry{Path: "/etc/java-17-openjdk"}) })},
	{"environment", request(func(r *spec.Request) {
		quota := 1.5
		r.Resources.CPUQuota = &quota
		r.Environment = map[string]string{"PATH": "/opt/bin", "Z": "täb\tnew\nline \"quoted\" \\ <&>", "EMPTY": ""}
		r.Command = []string{"sh", "-c", "", "\x01\x7f\u2028"}
	}), rootHost()},
}

// TestGolden pins the whole configuration and checks it against the JSON
// schema of the runtime specification.
func TestGolden(t *testing.T) {
	schema := ociSchema(t)
	for _, c := range goldenCases {
		t.Run(c.name, func(t *testing.T) {
			s, skeleton, err := BuildParts(c.req, c.host)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Encode(s)
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, filepath.Join("testdata", c.name+".json"), got)

			instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(got))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance); err != nil {
				t.Errorf("not valid OCI: %v", err)
			}
			back, err := Decode(got)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, s) {
				t.Errorf("decoding gives another configuration:\n%+v\n%+v", back, s)
			}
			var sk plan.Skeleton
			if err := json.Unmarshal([]byte(s.Annotations[plan.AnnotationSkeleton]), &sk); err != nil || !reflect.DeepEqual(&sk, skeleton) {
				t.Errorf("skeleton annotation: %v\n%+v\n%+v", err, sk, *skeleton)
			}
		})
	}
}

func compareGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run go test -update and read the diff\n%s", name, got)
	}
}

// ociSchema compiles the schema that the module of the specification ships.
func ociSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Fatalf("find runtime-spec: %v", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4) // the parts do not say it, the whole does
	c.UseLoader(schemaFiles{})
	schema, err := c.Compile(filepath.Join(strings.TrimSpace(string(out)), "schema", "config-schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// schemaFiles loads the parts of the schema.
type schemaFiles struct{}

// Load mends a reference in config-linux.json of version 1.3.0 that lacks a slash.
func (schemaFiles) Load(url string) (any, error) {
	data, err := os.ReadFile(strings.TrimPrefix(url, "file://"))
	if err != nil {
		return nil, err
	}
	data = bytes.ReplaceAll(data, []byte("#definitions/"), []byte("#/definitions/"))
	return jsonschema.UnmarshalJSON(bytes.NewReader(data))
}
