package spec

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds the nesting of a document. The deepest that the contract
// knows is an OCI seccomp object, at nine levels.
const maxDepth = 64

// DecodeRequest reads one request: strictly, with every default filled in and
// everything validated. The error is a fault.List of all problems at once,
// each with the JSON pointer of its field:
//
//   - E1001: a value of the wrong type or form;
//   - E1002: command, or a part of an entry, is missing;
//   - E1003: out of range; also a document longer than MaxDocumentBytes, which
//     is not looked into, or nested deeper than 64 levels;
//   - E1005: a key that is unknown or stands twice;
//   - E1006: a path that is not absolute and clean, or may not be mounted over;
//   - E6002: not JSON, alone, with the byte offset in details.offset. Invalid
//     UTF-8 and anything after the document count as that.
//
// The result does not alias data.
func DecodeRequest(data []byte) (*Request, error) { return DecodeOver(Default(), data) }

// DecodeOver is DecodeRequest with base in the place of the built-in
// defaults: what the configuration and a profile make of Default. A key of the
// document replaces the value of base as a whole, lists and maps included;
// base itself is not changed. Base must not have been completed, because the
// rlimits that depend on other fields would keep base's values.
func DecodeOver(base *Request, data []byte) (*Request, error) {
	r := base.detached()
	d := decoder{data: data, limit: MaxDocumentBytes}
	d.document(&requestObject, &r)
	if d.fatal != nil {
		return nil, fault.List{d.fatal}
	}
	var v problems
	v.validate(&r)
	for _, f := range v.list {
		if !d.reported(f.Field) {
			d.list = append(d.list, f)
		}
	}
	if err := d.list.Err(); err != nil {
		return nil, err
	}
	if !d.requires {
		r.askNamed(d.named)
	}
	r.Complete()
	return &r, nil
}

// DecodeResolved reads what Encode wrote, for the shim: unknown keys and
// wrong types are still faults, but nothing is validated and no default that
// depends on another field is filled in. The sender is trusted to have
// validated; bytes that it did not write give an error, never a panic. The
// document may be longer than the caller's was, because control characters in
// stdin grow sixfold.
func DecodeResolved(data []byte) (*Request, error) {
	r := Default()
	d := decoder{data: data}
	d.document(&requestObject, r)
	if err := d.err(); err != nil {
		return nil, err
	}
	return r, nil
}

// shortDocument is the length of a document up to which one copy of it serves all
// strings of the result, in bytes.
const shortDocument = 4 << 10

// decoder reads one document along the tables. Its methods give false when
// the document cannot be read any further; fatal then says why.
type decoder struct {
	problems
	in   *jsontext.Decoder
	data []byte
	// short is a copy of data, whose parts the strings of the result are; empty where
	// data is long: one string would keep all of it.
	short string
	// limit bounds the length of data. Zero: no bound.
	limit int
	// lenient ignores unknown keys.
	lenient bool
	// broken are the pointers at which nothing of the right type was found, so
	// that validation does not complain about what stands there instead.
	broken []string
	fatal  *fault.Fault
	// named are the keys of resources that the document has; requires: it has
	// isolation.require, and so says itself what was asked for.
	named    []string
	requires bool
}

// err is what was found.
func (d *decoder) err() error {
	if d.fatal != nil {
		return fault.List{d.fatal}
	}
	return d.list.Err()
}

// reported says whether the decoder has found the value at pointer, one that
// it consists of or one that it is part of to be of the wrong type.
func (d *decoder) reported(pointer string) bool {
	for _, b := range d.broken {
		if b == pointer || strings.HasPrefix(b, pointer+"/") || strings.HasPrefix(pointer, b+"/") {
			return true
		}
	}
	return false
}

// document reads the whole of data into root, which o describes.
func (d *decoder) document(o *object, root any) {
	if d.limit > 0 && len(d.data) > d.limit {
		d.fatal = fault.New(fault.OutOfRange, "", "the document has more than "+strconv.Itoa(d.limit)+" bytes").
			WithHint("Stream large input through stdin, or bind a file.")
		return
	}
	if len(d.data) <= shortDocument {
		d.short = string(d.data)
	}
	// The tables find duplicates, so that they can be reported with the rest.
	d.in = jsontext.NewDecoder(bytes.NewBuffer(d.data), jsontext.AllowDuplicateNames(true))
	if kind := d.in.PeekKind(); kind != '{' && kind != jsontext.KindInvalid {
		d.mistyped("an object")
	} else if _, ok := d.next(); !ok || !d.object(o, root) {
		return
	}
	if d.fatal == nil && len(bytes.Trim(d.data[d.in.InputOffset():], " \t\r\n")) > 0 {
		d.syntax(d.in.InputOffset(), "something follows the document")
	}
}

// next reads one token.
func (d *decoder) next() (jsontext.Token, bool) {
	token, err := d.in.ReadToken()
	return token, err == nil || d.unread(err)
}

// scalar reads a value that is neither object nor array, or a key. What it gives is
// valid until something else is read.
func (d *decoder) scalar() (jsontext.Value, bool) {
	v, err := d.in.ReadValue()
	return v, err == nil || d.unread(err)
}

// unquoted is the text of the string that has just been read.
func (d *decoder) unquoted(v jsontext.Value) string {
	if bytes.IndexByte(v, '\\') >= 0 {
		text, _ := jsontext.AppendUnquote(nil, v) // it was read, so it can be
		return string(text)
	}
	if end := int(d.in.InputOffset()); d.short != "" {
		return d.short[end-len(v)+1 : end-1]
	}
	return string(v[1 : len(v)-1])
}

// unread takes note of why nothing could be read. It is false.
func (d *decoder) unread(err error) bool {
	offset, cause := d.in.InputOffset(), err
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		offset, cause = syntactic.ByteOffset, syntactic.Err
	}
	message := strings.TrimPrefix(cause.Error(), "jsontext: ")
	if offset >= int64(len(d.data)) {
		message = "the document ends too early"
	}
	d.syntax(offset, message)
	return false
}

func (d *decoder) syntax(offset int64, message string) {
	d.fatal = fault.New(fault.JSONSyntax, "", "byte "+strconv.FormatInt(offset, 10)+": "+message).WithHint(d.syntaxHint())
	d.fatal.Details = map[string]any{"offset": offset}
}

// syntaxHint is what usually makes a document none. Empty: the code's own hint.
func (d *decoder) syntaxHint() string {
	switch text := bytes.TrimLeft(d.data, " \t\r\n{"); {
	case len(bytes.TrimSpace(d.data)) == 0:
		return "Nothing was given; a document begins with {, and the smallest request is {\"command\":[\"true\"]}."
	case len(text) < len(d.data) && len(text) > 0 && text[0] != '"' && text[0] != '}':
		return "Keys stand in double quotes; a shell takes those away that no single quotes protect: '{\"command\":[\"true\"]}'."
	}
	return ""
}

// skip passes over one value.
func (d *decoder) skip() bool {
	depth := d.in.StackDepth()
	for {
		if _, ok := d.next(); !ok {
			return false
		}
		now := d.in.StackDepth()
		if now > maxDepth {
			d.fatal = fault.New(fault.OutOfRange, "", "is nested deeper than "+strconv.Itoa(maxDepth)+" levels").WithField(d.pointer())
			return false
		}
		if now <= depth {
			return true
		}
	}
}

// object reads the members of an object, whose brace has been read, into
// owner.
func (d *decoder) object(o *object, owner any) bool {
	var seen uint64
	for d.in.PeekKind() != '}' {
		name, ok := d.scalar()
		if !ok {
			return false
		}
		key := d.unquoted(name)
		d.enter(key)
		i := o.index(key)
		switch {
		case i < 0:
			// To look for a near key takes longer than all the rest of it.
			if !d.lenient && !d.full() {
				d.put(fault.New(fault.UnknownField, "", "unknown key "+shown(key)).WithHint(suggestKey(key, o)))
			}
			ok = d.skip()
		case seen&(1<<i) != 0:
			d.duplicate(key)
			ok = d.skip()
		default:
			seen |= 1 << i
			d.notice(o, key)
			ok = d.value(&o.fields[i], o.fields[i].at(owner))
		}
		d.leave()
		if !ok {
			return false
		}
	}
	d.missing(o, seen)
	_, ok := d.next()
	return ok
}

// notice remembers what tells a limit that was asked for from a default.
func (d *decoder) notice(o *object, key string) {
	switch {
	case o == &resourcesObject:
		d.named = append(d.named, key)
	case o == &isolationObject && key == "require":
		d.requires = true
	}
}

// missing reports the required keys below the top of the request that were
// not seen. Those at its top have their own check in validation, which a
// request that was built from flags must pass, too.
func (d *decoder) missing(o *object, seen uint64) {
	if o == &requestObject || d.lenient {
		return
	}
	for i := range o.fields {
		if o.fields[i].required && seen&(1<<i) == 0 {
			d.enter(o.fields[i].name)
			d.add(fault.MissingField, "is required")
			d.broken = append(d.broken, d.pointer())
			d.leave()
		}
	}
}

func (d *decoder) duplicate(key string) {
	d.add(fault.UnknownField, "the key %s stands twice", shown(key))
}

// mistyped reports the value that comes next as not being what was wanted,
// and passes over it.
func (d *decoder) mistyped(wanted string) bool {
	kind := d.in.PeekKind()
	if kind == jsontext.KindInvalid {
		_, ok := d.next()
		return ok
	}
	f := invalid("must be %s, not %s", wanted, kindName(kind))
	at := d.pointer() // before the value is read
	if kind == '"' || wanted == "a string" && (kind == '0' || kind == 't' || kind == 'f') {
		token, ok := d.next()
		if ok {
			f.Hint = quotesHint(at, wanted, kind == '"', token.String())
			d.put(f)
			d.broken = append(d.broken, at)
		}
		return ok
	}
	d.put(f)
	d.broken = append(d.broken, at)
	return d.skip()
}

func kindName(kind jsontext.Kind) string {
	switch kind {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '[':
		return "an array"
	}
	return "an object"
}
