package spec

import (
	"reflect"
	"strings"
	"testing"
)

// tables are all objects of the contract with the struct that each describes.
var tables = []*object{
	&requestObject, &resourcesObject, &ioObject, &rlimitObject, &isolationObject, &bindObject,
	&responseObject, &terminationObject, &outputObject, &streamObject, &metricsObject,
	&enforcementObject, &denialObject, &timestampsObject, &errorObject,
}

// TestRowsMatchStructs holds the tables against the json tags: every field has
// one row, of the same name, in the same order and with its own address.
func TestRowsMatchStructs(t *testing.T) {
	for _, o := range tables {
		into := emptyOwner(o)
		v := reflect.ValueOf(into).Elem()
		fields := v.NumField()
		for fields > 0 && v.Type().Field(fields-1).Tag.Get("json") == "-" {
			fields-- // no part of the document; these come last
		}
		if fields != len(o.fields) {
			t.Errorf("%s: %d rows for %d fields of %s", o.title, len(o.fields), fields, v.Type())
			continue
		}
		if len(o.fields) > 64 {
			t.Errorf("%s has too many fields for the decoder's word of seen keys", o.title)
		}
		for i := range o.fields {
			f := &o.fields[i]
			tag, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if tag != f.name {
				t.Errorf("%s: row %q for the tag %q", o.title, f.name, tag)
			}
			if f.omit != (options == "omitempty") {
				t.Errorf("%s.%s: omit is %v, the tag says %q", o.title, f.name, f.omit, options)
			}
			if f.at(into) != v.Field(i).Addr().Interface() {
				t.Errorf("%s.%s: the row points at another field", o.title, f.name)
			}
			if f.doc == "" {
				t.Errorf("%s.%s has no documentation", o.title, f.name)
			}
		}
	}
}

// TestEveryRowHasACodec sends a value through the decoder and the encoder for
// every row, and null where null is allowed.
func TestEveryRowHasACodec(t *testing.T) {
	for _, o := range tables {
		for i := range o.fields {
			f := &o.fields[i]
			into := emptyOwner(o)
			b := appendValue(nil, f, f.at(into))
			d := newValueDecoder(b)
			d.lenient = true
			if !d.value(f, f.at(into)) || len(d.list) > 0 {
				t.Errorf("%s.%s: %s: %v", o.title, f.name, b, d.err())
			}
			if again := appendValue(nil, f, f.at(into)); string(again) != string(b) {
				t.Errorf("%s.%s: %s became %s", o.title, f.name, b, again)
			}
		}
	}
}

// TestNamesNeedNoEscape holds what the encoder relies on.
func TestNamesNeedNoEscape(t *testing.T) {
	var walk func(*object)
	walk = func(o *object) {
		for i := range o.fields {
			f := &o.fields[i]
			if quoted := string(appendString(nil, f.name)); quoted != `"`+f.name+`"` {
				t.Errorf("%s.%s is %s in JSON", o.title, f.name, quoted)
			}
			if f.object != nil {
				walk(f.object)
			}
		}
	}
	walk(&requestObject)
	walk(&responseObject)
}

func TestDegradableNames(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range degradable {
		if seen[n] {
			t.Errorf("%s stands twice", n)
		}
		seen[n] = true
	}
	for _, n := range append(WallNames(), LimitNames()...) {
		if !seen[n] {
			t.Errorf("%s cannot be degraded", n)
		}
	}
	if WallNames()[walls-1] != WallLandlock || LimitNames()[0] != LimitMemory {
		t.Error("the border between walls and limits is wrong")
	}
}

func TestSuggestions(t *testing.T) {
	for _, c := range []struct {
		key  string
		in   *object
		want string
	}{
		{"comand", &requestObject, "Did you mean `command`?"},
		{"timeout", &requestObject, "Did you mean `timeout_ms`?"},
		{"TimeoutMs", &requestObject, "Did you mean `timeout_ms`?"},
		{"env", &requestObject, "Did you mean `environment`?"},
		{"memory_bytes", &requestObject, "`memory_bytes` belongs in `resources`."},
		{"command", &isolationObject, "`command` belongs at the top of the document."},
		{"zzz", &ioObject, "Known here: read_bytes_per_second, write_bytes_per_second, read_ops_per_second, write_ops_per_second."},
		{strings.Repeat("command", 100), &stdinObject, "Known here: base64."},
	} {
		if have := suggestKey(c.key, c.in); have != c.want {
			t.Errorf("%s: %s", c.key, have)
		}
	}
	if have := nearest("RLIMIT_NOFILE", rlimitNames); have != "nofile" {
		t.Errorf("RLIMIT_NOFILE: %q", have)
	}
}
