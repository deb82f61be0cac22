package spec

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/go-json-experiment/json/jsontext"
)

// value reads the value that comes next into the field at ref.
func (d *decoder) value(f *field, ref any) bool {
	kind := d.in.PeekKind()
	if kind == 'n' && (f.orNull || setNull(ref)) {
		return d.skip()
	}
	if s := text(ref); s != nil {
		return d.text(s)
	}
	if f.object != nil {
		if ok, handled := d.nested(f, ref, kind); handled {
			return ok
		}
	}
	switch p := ref.(type) {
	case *bool:
		return d.boolean(p)
	case *int64:
		return d.integer(p)
	case *uint64:
		return d.unsigned(p)
	case **int64:
		return filled(p, d.integer)
	case **int:
		return filled(p, d.smallInteger)
	case **float64:
		return filled(p, d.float)
	case **string:
		return filled(p, d.text)
	case *time.Time:
		return d.time(p)
	case **time.Time:
		return filled(p, d.time)
	case **Bytes:
		return d.bytes(f, p)
	case *Seccomp:
		return d.seccomp(p)
	case *map[string]any:
		return d.anything(p)
	}
	return d.collection(f, ref)
}

// nested reads an object, or a null that setNull does not know, into the
// struct at ref. Handled is false when ref is no struct.
func (d *decoder) nested(f *field, ref any, kind jsontext.Kind) (ok, handled bool) {
	into, handled := owner(ref, kind == '{')
	if !handled {
		return false, false
	}
	if kind != '{' {
		return d.mistyped("an object"), true
	}
	if _, ok := d.next(); !ok {
		return false, true
	}
	return d.object(f.object, into), true
}

// setNull stores a null. It is false when the field cannot be null.
func setNull(ref any) bool {
	switch p := ref.(type) {
	case **Bytes:
		*p = nil
	case **int64:
		*p = nil
	case **int:
		*p = nil
	case **float64:
		*p = nil
	case **string:
		*p = nil
	case **time.Time:
		*p = nil
	case **IOLimits:
		*p = nil
	case **Output:
		*p = nil
	case **Enforcement:
		*p = nil
	case **Error:
		*p = nil
	case **Pressure:
		*p = nil
	case **Timeline:
		*p = nil
	default:
		return false
	}
	return true
}

// filled reads into a new value and stores it when it could be read.
func filled[T any](p **T, read func(*T) bool) bool {
	fresh := new(T)
	ok := read(fresh)
	if ok {
		*p = fresh
	}
	return ok
}

func (d *decoder) boolean(p *bool) bool {
	if kind := d.in.PeekKind(); kind != 't' && kind != 'f' {
		return d.mistyped("true or false")
	}
	token, ok := d.next()
	if ok {
		*p = token.Bool()
	}
	return ok
}

func (d *decoder) text(p *string) bool {
	if d.in.PeekKind() != '"' {
		return d.mistyped("a string")
	}
	v, ok := d.scalar()
	if ok {
		*p = d.unquoted(v)
	}
	return ok
}

// number reads the text of a number.
func (d *decoder) number(wanted string) (text string, number, ok bool) {
	if d.in.PeekKind() != '0' {
		return "", false, d.mistyped(wanted)
	}
	v, ok := d.scalar()
	if !ok {
		return "", false, false
	}
	if end := int(d.in.InputOffset()); d.short != "" {
		return d.short[end-len(v) : end], true, true
	}
	return string(v), true, true
}

// integer takes every number without a fraction, 3e4 and 30000.0 included, as
// JSON Schema does; programs whose only numbers are floating-point write such.
func (d *decoder) integer(p *int64) bool {
	s, number, ok := d.number("an integer")
	if !number {
		return ok
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		x, err := strconv.ParseFloat(s, 64)
		switch {
		case err != nil || math.Abs(x) > 1<<53:
			d.unusable(fault.OutOfRange, "is too large for an integer")
			return true
		case x != math.Trunc(x):
			d.unusable(fault.InvalidValue, "must be an integer, not a fraction")
			return true
		}
		n = int64(x)
	}
	*p = n
	return true
}

// unusable reports the number that has just been read.
func (d *decoder) unusable(code fault.Code, message string) {
	f := fault.New(code, "", message)
	if code == fault.OutOfRange {
		f.Hint = "`capsulectl schema request` prints the range of each field."
	}
	d.put(f)
	d.broken = append(d.broken, d.pointer())
}

// unsigned reads an rlimit, for which 2^64-1 stands for no limit.
func (d *decoder) unsigned(p *uint64) bool {
	s, number, ok := d.number("a number")
	if !number {
		return ok
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		x, err := strconv.ParseFloat(s, 64)
		switch {
		case err != nil || x < 0 || x > 1<<53:
			d.unusable(fault.OutOfRange, "is not in 0..18446744073709551615")
			return true
		case x != math.Trunc(x):
			d.unusable(fault.InvalidValue, "must be an integer, not a fraction")
			return true
		}
		n = uint64(x)
	}
	*p = n
	return true
}

func (d *decoder) smallInteger(p *int) bool {
	var n int64
	ok := d.integer(&n)
	*p = int(n)
	return ok
}

func (d *decoder) float(p *float64) bool {
	s, number, ok := d.number("a number")
	if !number {
		return ok
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		d.unusable(fault.OutOfRange, "is too large for a number")
		return true
	}
	*p = x
	return true
}

func (d *decoder) time(p *time.Time) bool {
	var s string
	if !d.text(&s) || s == "" {
		return d.fatal == nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		d.add(fault.InvalidValue, "%s is not a time of RFC 3339", shown(s))
		return true
	}
	*p = t.UTC()
	return true
}

// anything reads an object of any content.
func (d *decoder) anything(p *map[string]any) bool {
	if d.in.PeekKind() != '{' {
		return d.mistyped("an object")
	}
	raw, ok := d.raw()
	if !ok {
		return false
	}
	if err := json.Unmarshal(raw, p); err != nil {
		d.add(fault.InvalidValue, "%v", err)
	}
	return true
}

// raw passes over the value that comes next and gives its bytes, which belong
// to the document.
func (d *decoder) raw() (json.RawMessage, bool) {
	before := d.in.InputOffset()
	if !d.skip() {
		return nil, false
	}
	raw := d.data[before:d.in.InputOffset()]
	// The separator in front of the value belongs to the token before it.
	for len(raw) > 0 && (raw[0] == ':' || raw[0] == ',' || raw[0] == ' ' || raw[0] == '\t' || raw[0] == '\r' || raw[0] == '\n') {
		raw = raw[1:]
	}
	return json.RawMessage(raw), true
}
