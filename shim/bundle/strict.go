package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxDepth bounds the nesting of a document; the specification needs 8.
const maxDepth = 64

// checkKeys holds every key of the document against the fields of specs.Spec,
// exactly, and refuses those that stand twice. encoding/json alone would match
// names in any case, keep the last of two, and not say where.
func checkKeys(data []byte) error {
	k := keyChecker{d: json.NewDecoder(bytes.NewReader(data))}
	k.d.UseNumber()
	err := k.value(reflect.TypeFor[specs.Spec](), "", 0)
	if err == nil {
		if _, err = k.d.Token(); err == io.EOF {
			return nil
		}
		err = k.invalid("", "data after the document")
	}
	return fault.From(err, fault.InvalidBundle)
}

type keyChecker struct{ d *json.Decoder }

func (k *keyChecker) invalid(field, message string) error {
	return fault.New(fault.InvalidBundle, "decode config.json", message).WithField(field)
}

// value reads one value that is to be stored in t. A nil t is anything: the
// value is of the wrong type, which the real decoding reports.
func (k *keyChecker) value(t reflect.Type, field string, depth int) error {
	tok, err := k.token(field)
	if err != nil {
		return err
	}
	if depth > maxDepth {
		return k.invalid(field, "nested too deeply")
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch tok {
	case json.Delim('{'):
		return k.object(t, field, depth)
	case json.Delim('['):
		return k.array(t, field, depth)
	}
	return nil
}

// token reads the next token of the value that field names.
func (k *keyChecker) token(field string) (json.Token, error) {
	tok, err := k.d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fault.Wrap(fault.InvalidBundle, "decode config.json", err).WithField(field)
	}
	return tok, nil
}

func (k *keyChecker) array(t reflect.Type, field string, depth int) error {
	var element reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		element = t.Elem()
	}
	for i := 0; k.d.More(); i++ {
		if err := k.value(element, field+"["+strconv.Itoa(i)+"]", depth+1); err != nil {
			return err
		}
	}
	_, err := k.token(field)
	return err
}

func (k *keyChecker) object(t reflect.Type, field string, depth int) error {
	seen := map[string]bool{}
	for k.d.More() {
		tok, err := k.token(field)
		if err != nil {
			return err
		}
		key := tok.(string) // the grammar allows nothing else here
		at := strings.TrimPrefix(field+"."+key, ".")
		if seen[key] {
			return k.invalid(at, "the key stands twice")
		}
		seen[key] = true
		var member reflect.Type
		switch {
		case t != nil && t.Kind() == reflect.Map:
			member = t.Elem()
		case t != nil && t.Kind() == reflect.Struct:
			if member = memberType(t, key); member == nil {
				return k.invalid(at, "unknown field")
			}
		}
		if err := k.value(member, at, depth+1); err != nil {
			return err
		}
	}
	_, err := k.token(field)
	return err
}

// memberType is the type of the field of struct t that has the JSON name key.
func memberType(t reflect.Type, key string) reflect.Type {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			if m := memberType(f.Type, key); m != nil {
				return m
			}
			continue
		}
		if name != "" && name == key {
			return f.Type
		}
	}
	return nil
}
