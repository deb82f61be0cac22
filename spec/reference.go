package spec

import (
	"strconv"
	"strings"
	"time"
)

// Reference is the documentation of one field, as docs/request.md shows it.
// The texts are Markdown.
type Reference struct {
	// Name is the dotted name, with [] behind a list whose elements are
	// objects: "isolation.bind_mounts[].source".
	Name string
	// Type is a word of JSON; "or null" follows where null is accepted.
	Type string
	// Default is the JSON of the default, "required", or empty where the
	// document is not a request.
	Default string
	// Range says which values are accepted. May be empty.
	Range string
	// Meaning is what the field does.
	Meaning string
}

// References lists the fields of "request" or "response" in the order of the
// document, each object followed by its own fields. Another name is E1001.
func References(document string) ([]Reference, error) {
	o, err := tableOf(document)
	if err != nil {
		return nil, err
	}
	return references(nil, o, "", document == DocumentRequest), nil
}

func references(all []Reference, o *object, prefix string, request bool) []Reference {
	for i := range o.fields {
		f := &o.fields[i]
		ref := f.at(emptyOwner(o))
		kind := kindOf(ref)
		entry := Reference{Name: prefix + f.name, Type: kind, Meaning: f.doc, Range: f.rangeText(ref)}
		if f.orNull {
			entry.Type += " or null"
		}
		if request {
			entry.Default = f.defaultText(ref)
		}
		all = append(all, entry)
		if f.object != nil && f.object != &stdinObject && f.object != &rlimitObject {
			suffix := "."
			if kind == "array of objects" {
				suffix = "[]."
			}
			all = references(all, f.object, entry.Name+suffix, request)
		}
	}
	return all
}

// kindOf says the JSON type of the field at ref.
func kindOf(ref any) string {
	if text(ref) != nil {
		return "string"
	}
	switch ref.(type) {
	case *bool:
		return "boolean"
	case *int64, *uint64:
		return "integer"
	case **int64, **int:
		return "integer or null"
	case **float64:
		return "number or null"
	case **string, **time.Time:
		return "string or null"
	case *time.Time:
		return "string"
	case **Bytes:
		return "string, object or null"
	case *Seccomp:
		return "string or object"
	case *[]string:
		return "array of strings"
	case *[]BindMount, *[]Denial, *[]Point, *[]SyscallUse:
		return "array of objects"
	case *map[string]string, *map[string]State:
		return "object of strings"
	case *map[string]int64:
		return "object of integers"
	case *map[string]Rlimit:
		return "object of integers or {soft, hard}"
	case **IOLimits, **Output, **Enforcement, **Error, **Pressure, **Timeline:
		return "object or null"
	}
	return "object"
}

// defaultText shows the default as JSON, as Default makes it.
func (f *field) defaultText(ref any) string {
	switch v := f.def.(type) {
	case string:
		return `"` + v + `"`
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	}
	switch kind := kindOf(ref); {
	case f.required:
		return "required"
	case strings.HasSuffix(kind, "null"):
		return "null"
	case strings.HasPrefix(kind, "array"):
		return "[]"
	}
	return "{}"
}

// rangeText joins what the columns of the table say and what they cannot.
func (f *field) rangeText(ref any) string {
	var parts []string
	add := func(s string) { parts = append(parts, s) }
	switch kind := kindOf(ref); {
	case strings.HasPrefix(kind, "integer"), strings.HasPrefix(kind, "number"):
		if f.bounded() {
			add(strings.TrimPrefix(f.bounds(), "in "))
		}
	case strings.HasPrefix(kind, "array"), strings.HasPrefix(kind, "object of"):
		unit := " entries"
		if kind[0] == 'a' {
			unit = " elements"
		}
		if f.max > 0 {
			add(plainNumber(f.min) + ".." + plainNumber(f.max) + unit)
		}
		if f.maxKeyBytes > 0 {
			add("keys of at most " + strconv.Itoa(f.maxKeyBytes) + " bytes")
		}
	}
	if f.enum != nil && f.accepts == "" {
		add("`" + strings.Join(f.enum, "`, `") + "`")
	}
	if f.maxBytes > 0 {
		add("at most " + strconv.Itoa(f.maxBytes) + " bytes without NUL")
	}
	if f.accepts != "" {
		add(f.accepts)
	}
	return strings.Join(parts, "; ")
}

// Least is the least value of a number in a request, by its JSON pointer; 0 where it
// has no other bound.
func Least(pointer string) int64 {
	o, name := &requestObject, strings.TrimPrefix(pointer, "/")
	if rest, ok := strings.CutPrefix(name, "resources/"); ok {
		o, name = &resourcesObject, rest
	}
	for i := range o.fields {
		if o.fields[i].name == name {
			return int64(o.fields[i].min)
		}
	}
	return 0
}
