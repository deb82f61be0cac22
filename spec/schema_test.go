package spec_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/spec/spectest"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func compile(t *testing.T, document string) *jsonschema.Schema {
	t.Helper()
	text, err := spec.Schema(document)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../docs/"+document+".schema.json", text)
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("file:///"+document, schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("file:///" + document)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func valid(schema *jsonschema.Schema, document []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

func TestSchemaAccepts(t *testing.T) {
	request := compile(t, spec.DocumentRequest)
	for _, document := range [][]byte{
		[]byte(`{"command":["true"]}`), []byte(`{"command":["true",""],"stdin":{"base64":""},"isolation":{"seccomp":{}}}`),
		read(t, "testdata/full.json"), read(t, "testdata/full.resolved.json"),
	} {
		if err := valid(request, document); err != nil {
			t.Errorf("%s: %v", document, err)
		}
	}
	response := compile(t, spec.DocumentResponse)
	running := &spec.Response{ExecutionID: "id", Status: spec.StatusRunning}
	for _, document := range [][]byte{finished().Encode(true), spec.Refused("id", refusal(t), created).Encode(false), running.Encode(false)} {
		if err := valid(response, document); err != nil {
			t.Errorf("%s: %v", document, err)
		}
	}
}

// TestSchemaRefuses gives the schema each malformed document that is JSON.
// What it lets pass is what a schema cannot say.
func TestSchemaRefuses(t *testing.T) {
	request := compile(t, spec.DocumentRequest)
	cases, err := spectest.Malformed()
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, c := range cases {
		codes := make([]string, len(c.Want))
		for i, w := range c.Want {
			codes[i] = w.Code
		}
		document, err := c.Bytes()
		if err != nil || slices.Contains(codes, "E6002") || len(document) > 1<<20 || slices.Contains(codes, "E1006") ||
			strings.Contains(c.Name, "twice") || strings.Contains(c.Name, "uplicate") || strings.Contains(c.Name, "user ") {
			continue
		}
		if valid(request, document) != nil {
			refused++
			continue
		}
		if !slices.Contains(beyondSchema, c.Name) {
			t.Errorf("%s passes the schema", c.Name)
		}
	}
	if refused < 80 {
		t.Errorf("only %d refused", refused)
	}
}

// beyondSchema are malformed documents about which a schema has no say: the
// forms of strings and what several fields have to do with one another.
var beyondSchema = []string{
	"seccomp nested too deep", "first element empty", "NUL in an argument", "variable name with a digit first",
	"variable name with an equals sign", "variable name not ASCII", "NUL in a variable", "stdin not base64",
	"label key with a space", "label with an escape sequence", "rlimit soft above hard", "path with NUL",
	"too many binds in all", "hostname empty", "hostname with an underscore", "hostname with a hyphen last",
	"hostname with an empty part",
}

func TestUnknownDocument(t *testing.T) {
	_, err1 := spec.Schema("config")
	_, err2 := spec.References("config")
	for _, err := range []error{err1, err2} {
		if !errors.Is(err, &fault.Fault{Code: fault.InvalidValue}) {
			t.Error(err)
		}
	}
}

func TestReferences(t *testing.T) {
	fields, err := spec.References(spec.DocumentRequest)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		if f.Name == "" || f.Type == "" || f.Default == "" || !strings.HasSuffix(f.Meaning, ".") {
			t.Errorf("incomplete: %+v", f)
		}
	}
}
