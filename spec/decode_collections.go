package spec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/go-json-experiment/json/jsontext"
)

// maxSeccompBytes bounds an OCI seccomp object. Docker's profile has 14 KiB.
const maxSeccompBytes = 1 << 20

// collection reads a list or a map.
func (d *decoder) collection(f *field, ref any) bool {
	switch p := ref.(type) {
	case *[]string:
		return list(d, f, p, func(s *string) bool { return d.text(s) })
	case *[]BindMount:
		return list(d, f, p, func(b *BindMount) bool {
			setDefaults(f.object, b)
			return d.element(f, b)
		})
	case *[]Denial:
		return list(d, f, p, func(v *Denial) bool { return d.element(f, v) })
	case *[]Point:
		return list(d, f, p, func(v *Point) bool { return d.element(f, v) })
	case *[]SyscallUse:
		return list(d, f, p, func(v *SyscallUse) bool { return d.element(f, v) })
	case *map[string]string:
		return dictionary(d, f, p, func(s *string) bool { return d.text(s) })
	case *map[string]Rlimit:
		return dictionary(d, f, p, func(l *Rlimit) bool { return d.rlimit(f, l) })
	case *map[string]int64:
		return dictionary(d, f, p, d.integer)
	case *map[string]State:
		return dictionary(d, f, p, func(s *State) bool { return d.text((*string)(s)) })
	}
	// A test decodes every row of every table.
	panic("spec: no decoder for the field " + f.name)
}

// element reads an object that stands in a list.
func (d *decoder) element(f *field, into any) bool {
	if d.in.PeekKind() != '{' {
		return d.mistyped("an object")
	}
	if _, ok := d.next(); !ok {
		return false
	}
	return d.object(f.object, into)
}

// list reads an array into p. It stores one element more than allowed, from
// which validation sees that there are too many, and passes over the rest, so
// that a hostile document does not multiply in memory.
func list[T any](d *decoder, f *field, p *[]T, read func(*T) bool) bool {
	if d.in.PeekKind() != '[' {
		return d.mistyped("an array")
	}
	if _, ok := d.next(); !ok {
		return false
	}
	items := []T{}
	var item, none T // one for all: each would be on the heap
	for d.in.PeekKind() != ']' {
		ok := true
		if f.max > 0 && len(items) > int(f.max) {
			ok = d.skip()
		} else {
			item = none
			d.enterIndex(len(items))
			ok = read(&item)
			d.leave()
			items = append(items, item)
		}
		if !ok {
			return false
		}
	}
	*p = items
	_, ok := d.next()
	return ok
}

// dictionary reads an object with free keys into p, bounded as in list.
func dictionary[T any](d *decoder, f *field, p *map[string]T, read func(*T) bool) bool {
	if d.in.PeekKind() != '{' {
		return d.mistyped("an object")
	}
	if _, ok := d.next(); !ok {
		return false
	}
	items := map[string]T{}
	var item, none T // as in list
	for d.in.PeekKind() != '}' {
		name, ok := d.scalar()
		if !ok {
			return false
		}
		key := d.unquoted(name)
		d.enter(key)
		if _, twice := items[key]; twice {
			d.duplicate(key)
			ok = d.skip()
		} else if f.max > 0 && len(items) > int(f.max) {
			ok = d.skip()
		} else {
			item = none
			ok = read(&item)
			items[key] = item
		}
		d.leave()
		if !ok {
			return false
		}
	}
	*p = items
	_, ok := d.next()
	return ok
}

// rlimit reads a number for both limits, or an object.
func (d *decoder) rlimit(f *field, l *Rlimit) bool {
	switch d.in.PeekKind() {
	case '{':
		return d.element(f, l)
	case '0':
		ok := d.unsigned(&l.Soft)
		l.Hard = l.Soft
		return ok
	}
	return d.mistyped("a number or an object")
}

// bytes reads a string, or an object with the key base64.
func (d *decoder) bytes(f *field, p **Bytes) bool {
	var s string
	switch d.in.PeekKind() {
	case '"':
		if !d.text(&s) {
			return false
		}
		b := Bytes(s)
		*p = &b
		return true
	case '{':
		before := len(d.broken)
		if !d.element(f, &s) {
			return false
		}
		if len(d.broken) > before {
			return true
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			d.enter("base64")
			d.unusable(fault.InvalidValue, "is not base64: "+err.Error())
			d.leave()
			return true
		}
		*p = (*Bytes)(&b)
		return true
	}
	return d.mistyped("a string or an object with the key base64")
}

// seccomp reads the name of a filter or an object, which it keeps as text
// without white space; what it means is checked where it is compiled.
func (d *decoder) seccomp(s *Seccomp) bool {
	switch d.in.PeekKind() {
	case '"':
		*s = Seccomp{}
		return d.text(&s.Name)
	case '{':
	default:
		return d.mistyped("a string or an object")
	}
	raw, ok := d.raw()
	if !ok {
		return false
	}
	if len(raw) > maxSeccompBytes {
		d.unusable(fault.OutOfRange, "has more than "+strconv.Itoa(maxSeccompBytes)+" bytes")
		return true
	}
	compact := jsontext.Value(raw).Clone()
	if err := compact.Compact(jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false)); err != nil {
		return d.ambiguous(err)
	}
	*s = Seccomp{Custom: json.RawMessage(bytes.Clone(compact))}
	return true
}

// ambiguous reports a duplicate key inside a raw value. It is the only fault
// that can be left in one that has been read once.
func (d *decoder) ambiguous(err error) bool {
	var syntactic *jsontext.SyntacticError
	if !errors.As(err, &syntactic) {
		d.unusable(fault.InvalidValue, err.Error())
		return true
	}
	depth := len(d.at)
	for key := range syntactic.JSONPointer.Tokens() {
		d.enter(key)
	}
	d.duplicate(syntactic.JSONPointer.LastToken())
	d.at = d.at[:depth]
	d.broken = append(d.broken, d.pointer())
	return true
}
