package specjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Read decodes a config.json as the specification asks of runtimes and as encoding/json does
// it: keys that it does not know are ignored, those in another case count, of two that are the
// same the later holds. Anything that is not of its type is E2009, with the field.
func Read(data []byte) (*specs.Spec, error) {
	return document(data, "decode config.json", false, readSpec)
}

// ReadStrictly is Read for documents of ours: a key that is unknown, stands twice or is
// spelt otherwise is E2009 too.
func ReadStrictly(data []byte) (*specs.Spec, error) {
	return document(data, "decode config.json", true, readSpec)
}

// ReadProcess decodes a process as Read does.
func ReadProcess(data []byte) (*specs.Process, error) {
	return document(data, "decode process", false, readProcess)
}

// ReadResources decodes linux.resources as Read does.
func ReadResources(data []byte) (*specs.LinuxResources, error) {
	return document(data, "decode resources", false, readLinuxResources)
}

// reader reads one document. The first error stays, and ends all loops.
type reader struct {
	in     *jsontext.Decoder
	op     string
	strict bool
	err    error
}

func document[T any](data []byte, op string, strict bool, read func(*reader, *T)) (*T, error) {
	r := &reader{in: jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(!strict)), op: op, strict: strict}
	v := new(T)
	read(r, v)
	if r.err == nil {
		if _, err := r.in.ReadToken(); err != io.EOF {
			r.fail("", "data after the document")
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return v, nil
}

// fail keeps the first error.
func (r *reader) fail(field, message string) {
	if r.err == nil {
		r.err = fault.New(fault.InvalidBundle, r.op, message).WithField(field)
	}
}

// wrong says what stands where something else is to stand.
func (r *reader) wrong(kind jsontext.Kind, want string) {
	have := map[jsontext.Kind]string{'{': "an object", '[': "a list", '"': "text", '0': "a number", 't': "true", 'f': "false", 'n': "null"}[kind]
	r.fail(r.at(r.in.StackPointer()), "is "+have+", not "+want)
}

// at is a pointer to a value that is being read, as "linux.namespaces[0].path".
func (r *reader) at(p jsontext.Pointer) string {
	var b strings.Builder
	depth := 0
	for name := range p.Tokens() {
		depth++
		list := false
		if depth <= r.in.StackDepth() {
			kind, _ := r.in.StackIndex(depth)
			list = kind == '['
		}
		switch {
		case list:
			b.WriteString("[" + name + "]")
		case depth > 1:
			b.WriteString("." + name)
		default:
			b.WriteString(name)
		}
	}
	return b.String()
}

// token reads the next one. On an error the reader is at its end.
func (r *reader) token() (jsontext.Token, bool) {
	if r.err != nil {
		return jsontext.Token{}, false
	}
	t, err := r.in.ReadToken()
	if err != nil {
		r.broken(err)
	}
	return t, err == nil
}

// broken tells that the document is no JSON, or that a key stands twice in it.
func (r *reader) broken(err error) {
	var syntax *jsontext.SyntacticError
	field := r.at(r.in.StackPointer())
	switch {
	case errors.As(err, &syntax) && errors.Is(err, jsontext.ErrDuplicateName):
		r.fail(r.at(syntax.JSONPointer), "the key stands twice")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.fail(field, "the document ends too early")
	case syntax != nil:
		r.fail(field, strings.TrimPrefix(syntax.Err.Error(), "jsontext: ")+" at byte "+strconv.FormatInt(syntax.ByteOffset, 10))
	default:
		r.fail(field, err.Error())
	}
}

// keys are those of an object.
type keys []string

// find gives the place of a key; -1: it is none.
func (k keys) find(name string, strict bool) int {
	for i := range k {
		if k[i] == name {
			return i
		}
	}
	for i := range k {
		if !strict && strings.EqualFold(k[i], name) {
			return i
		}
	}
	return -1
}

// object reads an object and gives the place of each key that it knows; the body reads the
// value. Null is an object without keys.
func (r *reader) object(k keys) iter.Seq[int] {
	return func(yield func(int) bool) {
		for name := range r.members() {
			switch i := k.find(name, r.strict); {
			case i >= 0:
				if !yield(i) {
					return
				}
			case r.strict:
				r.fail(r.at(r.in.StackPointer()), "unknown field")
			default:
				if err := r.in.SkipValue(); err != nil {
					r.broken(err)
				}
			}
		}
	}
}

// members gives the keys of an object, whose values the body reads.
func (r *reader) members() iter.Seq[string] {
	return func(yield func(string) bool) {
		if !r.begins('{', "an object") {
			return
		}
		for {
			t, ok := r.token()
			if !ok || t.Kind() == '}' || !yield(t.String()) {
				return
			}
		}
	}
}

// begins reads how an object or a list begins. False: it is null, or something else.
func (r *reader) begins(kind jsontext.Kind, want string) bool {
	t, ok := r.token()
	if ok && t.Kind() != kind && t.Kind() != 'n' {
		r.wrong(t.Kind(), want)
	}
	return ok && t.Kind() == kind
}

func readText[T ~string](r *reader, v *T) {
	switch t, ok := r.token(); {
	case !ok || t.Kind() == 'n':
	case t.Kind() == '"':
		*v = T(t.String())
	default:
		r.wrong(t.Kind(), "text")
	}
}

func readBool[T ~bool](r *reader, v *T) {
	switch t, ok := r.token(); {
	case !ok || t.Kind() == 'n':
	case t.Kind() == 't' || t.Kind() == 'f':
		*v = T(t.Bool())
	default:
		r.wrong(t.Kind(), "true or false")
	}
}

// number is the next token as a number that T can hold. Empty: it is null, or an error.
func number(r *reader) string {
	t, ok := r.token()
	switch {
	case !ok || t.Kind() == 'n':
		return ""
	case t.Kind() == '0':
		return t.String()
	}
	r.wrong(t.Kind(), "a number")
	return ""
}

func readInt[T ~int | ~int8 | ~int16 | ~int32 | ~int64](r *reader, v *T) {
	text := number(r)
	if text == "" {
		return
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || int64(T(n)) != n {
		r.fail(r.at(r.in.StackPointer()), text+" is out of range or no whole number")
		return
	}
	*v = T(n)
}

func readUint[T ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64](r *reader, v *T) {
	text := number(r)
	if text == "" {
		return
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || uint64(T(n)) != n {
		r.fail(r.at(r.in.StackPointer()), text+" is out of range or no whole number")
		return
	}
	*v = T(n)
}

// readAny reads what the specification leaves to others.
func readAny(r *reader, v *any) {
	if r.err != nil {
		return
	}
	text, err := r.in.ReadValue()
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		r.broken(err)
	}
}

func readPointer[T any](r *reader, v **T, of func(*reader, *T)) {
	if r.err != nil || r.in.PeekKind() == 'n' {
		*v = nil
		_, _ = r.token() // the null; an error stays in r
		return
	}
	if *v == nil {
		*v = new(T)
	}
	of(r, *v)
}

func readList[T any](r *reader, v *[]T, of func(*reader, *T)) {
	*v = nil
	if !r.begins('[', "a list") {
		return
	}
	all := []T{}
	for r.err == nil && r.in.PeekKind() != ']' {
		var one T
		of(r, &one)
		all = append(all, one)
	}
	_, _ = r.token() // the bracket; an error stays in r
	*v = all
}

func readMap[T any](r *reader, v *map[string]T, of func(*reader, *T)) {
	if r.err == nil && r.in.PeekKind() == 'n' {
		*v = nil
	}
	for name := range r.members() {
		if *v == nil {
			*v = map[string]T{}
		}
		var one T
		of(r, &one)
		(*v)[name] = one
	}
}
