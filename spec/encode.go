package spec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// timeLayout is RFC 3339 in UTC with all nine digits of the nanoseconds, so
// that times of the same second sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

// appendObject appends owner as JSON. It is written out by hand along the
// tables because the reflection of encoding/json costs a tenth of a
// millisecond in a process that has just started.
func appendObject(b []byte, o *object, owner any) []byte {
	b = append(b, '{')
	first := true
	for i := range o.fields {
		f := &o.fields[i]
		ref := f.at(owner)
		if f.omit && isEmpty(ref) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(b, '"'), f.name...) // a test holds that no name needs more
		b = append(b, '"', ':')
		b = appendValue(b, f, ref)
	}
	return append(b, '}')
}

// isEmpty says whether the field at ref is null, an empty string, list or map.
func isEmpty(ref any) bool {
	if s := text(ref); s != nil {
		return *s == ""
	}
	switch p := ref.(type) {
	case **string:
		return *p == nil
	case *[]Denial:
		return len(*p) == 0
	case *[]SyscallUse:
		return len(*p) == 0
	case *[]string:
		return len(*p) == 0
	case *map[string]int64:
		return len(*p) == 0
	case *map[string]any:
		return len(*p) == 0
	}
	nested, ok := owner(ref, false)
	return ok && nested == nil
}

func appendValue(b []byte, f *field, ref any) []byte {
	if s := text(ref); s != nil {
		if f.orNull && *s == "" {
			return append(b, "null"...)
		}
		return appendString(b, *s)
	}
	if nested, ok := owner(ref, false); ok {
		if nested == nil {
			return append(b, "null"...)
		}
		return appendObject(b, f.object, nested)
	}
	switch p := ref.(type) {
	case *bool:
		return strconv.AppendBool(b, *p)
	case *int64:
		return strconv.AppendInt(b, *p, 10)
	case *uint64:
		return strconv.AppendUint(b, *p, 10)
	case **int64:
		return appendNullable(b, *p, func(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) })
	case **int:
		return appendNullable(b, *p, func(b []byte, n int) []byte { return strconv.AppendInt(b, int64(n), 10) })
	case **float64:
		return appendNullable(b, *p, appendFloat)
	case **string:
		return appendNullable(b, *p, appendString)
	case **time.Time:
		return appendNullable(b, *p, appendTime)
	case *time.Time:
		return appendTime(b, *p)
	case **Bytes:
		return appendNullable(b, *p, appendBytes)
	case *Seccomp:
		return appendSeccomp(b, *p)
	}
	return appendCollection(b, f, ref)
}

func appendCollection(b []byte, f *field, ref any) []byte {
	switch p := ref.(type) {
	case *[]string:
		return appendList(b, *p, func(b []byte, s *string) []byte { return appendString(b, *s) })
	case *[]BindMount:
		return appendList(b, *p, func(b []byte, v *BindMount) []byte { return appendObject(b, f.object, v) })
	case *[]Denial:
		return appendList(b, *p, func(b []byte, v *Denial) []byte { return appendObject(b, f.object, v) })
	case *[]Point:
		return appendList(b, *p, func(b []byte, v *Point) []byte { return appendObject(b, f.object, v) })
	case *[]SyscallUse:
		return appendList(b, *p, func(b []byte, v *SyscallUse) []byte { return appendObject(b, f.object, v) })
	case *map[string]string:
		return appendMap(b, *p, appendString)
	case *map[string]State:
		return appendMap(b, *p, func(b []byte, s State) []byte { return appendString(b, string(s)) })
	case *map[string]int64:
		return appendMap(b, *p, func(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) })
	case *map[string]Rlimit:
		return appendMap(b, *p, func(b []byte, l Rlimit) []byte { return appendObject(b, f.object, &l) })
	case *map[string]any:
		return appendAny(b, *p)
	}
	// A test encodes every row of every table.
	panic("spec: no encoder for the field " + f.name)
}

func appendNullable[T any](b []byte, p *T, appendTo func([]byte, T) []byte) []byte {
	if p == nil {
		return append(b, "null"...)
	}
	return appendTo(b, *p)
}

func appendList[T any](b []byte, list []T, appendTo func([]byte, *T) []byte) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTo(b, &list[i])
	}
	return append(b, ']')
}

// appendMap appends the entries in the order of their keys, so that the same
// document is encoded to the same bytes.
func appendMap[T any](b []byte, m map[string]T, appendTo func([]byte, T) []byte) []byte {
	b = append(b, '{')
	for i, k := range sortedKeys(m) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, k)
		b = append(b, ':')
		b = appendTo(b, m[k])
	}
	return append(b, '}')
}

// appendString quotes s. Bytes that are not UTF-8 become U+FFFD: JSON cannot
// hold them, and validation has refused them in a request.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// appendFloat appends a number; what JSON cannot express is null.
func appendFloat(b []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return append(b, "null"...)
	}
	return jsontext.AppendFloat(b, x, 64)
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, timeLayout)
	return append(b, '"')
}

func appendBytes(b []byte, data Bytes) []byte {
	if utf8.Valid(data) {
		b, _ = jsontext.AppendQuote(b, []byte(data))
		return b
	}
	b = append(b, `{"base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, `"}`...)
}

func appendSeccomp(b []byte, s Seccomp) []byte {
	if s.Custom != nil {
		return append(b, bytes.TrimSpace(s.Custom)...)
	}
	return appendString(b, s.Name)
}

// appendAny appends a value of Error.Details. The types that capsule itself
// puts there are written directly; others go through encoding/json, and what
// that refuses becomes null.
func appendAny(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		return appendString(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return appendFloat(b, v)
	case []string:
		return appendList(b, v, func(b []byte, s *string) []byte { return appendString(b, *s) })
	case []any:
		return appendList(b, v, func(b []byte, e *any) []byte { return appendAny(b, *e) })
	case map[string]any:
		return appendMap(b, v, appendAny)
	}
	return slices.Concat(b, marshalled(v))
}

func marshalled(v any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(v) != nil {
		return []byte("null")
	}
	return bytes.TrimSpace(out.Bytes())
}
