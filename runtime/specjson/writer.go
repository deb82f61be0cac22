package specjson

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Writer appends JSON to a buffer. Its methods give the writer, so that an object reads as
// one line.
type Writer struct {
	buf []byte
	// pretty puts each member on a line of its own, except inside inline containers.
	pretty bool
	// depth counts open containers, flat those of them that are inline or lie in one.
	depth, flat int
	// row: the next container is inline.
	row bool
	err error
	// ready is written in place of the object at the pointer.
	ready any
	text  string
}

// NewWriter writes compact JSON, or for people one member a line, into a buffer of a capacity.
func NewWriter(capacity int, pretty bool) *Writer {
	return &Writer{buf: make([]byte, 0, capacity), pretty: pretty}
}

// Ready has the object that a pointer of the document points to written as a text that
// stands ready.
func (w *Writer) Ready(object any, text string) *Writer {
	w.ready, w.text = object, text
	return w
}

// Spec writes a config.json, as encoding/json would, but for sets of capabilities: empty ones
// are to be seen. Lists that must be there are [] and not null.
func (w *Writer) Spec(s *specs.Spec) *Writer { writeSpec(w, s); return w }

// State writes what hooks and callers get.
func (w *Writer) State(s *specs.State) *Writer { writeState(w, s); return w }

// ProcessState writes what a listener for system calls gets.
func (w *Writer) ProcessState(s *specs.ContainerProcessState) *Writer {
	writeContainerProcessState(w, s)
	return w
}

// Bytes is what was written. Text that is not UTF-8 cannot be expressed in JSON and is E2009;
// it stands in the bytes as it is.
func (w *Writer) Bytes() ([]byte, error) {
	if w.err != nil {
		return w.buf, fault.Wrap(fault.InvalidBundle, "encode config.json", w.err)
	}
	return w.buf, nil
}

var errText = errors.New("text that is not UTF-8")

// Open begins an object or an array.
func (w *Writer) Open(bracket byte) *Writer {
	if w.flat > 0 || w.row {
		w.flat++
	}
	w.row = false
	w.buf = append(w.buf, bracket)
	w.depth++
	return w
}

// Line begins one that stays on its line.
func (w *Writer) Line(bracket byte) *Writer {
	w.row = true
	return w.Open(bracket)
}

// Close ends what the last Open or Line began.
func (w *Writer) Close(bracket byte) *Writer {
	w.depth--
	last := w.buf[len(w.buf)-1]
	if w.flat == 0 && last != '{' && last != '[' {
		w.newline()
	}
	if w.flat > 0 {
		w.flat--
	}
	w.buf = append(w.buf, bracket)
	return w
}

// Next begins an element of an array or a member of an object.
func (w *Writer) Next() *Writer {
	last := w.buf[len(w.buf)-1]
	first := last == '{' || last == '['
	if !first {
		w.buf = append(w.buf, ',')
	}
	if w.flat == 0 {
		w.newline()
	} else if !first && w.pretty {
		w.buf = append(w.buf, ' ')
	}
	return w
}

func (w *Writer) newline() {
	if !w.pretty {
		return
	}
	w.buf = append(w.buf, '\n')
	for range w.depth {
		w.buf = append(w.buf, '\t')
	}
}

// Key begins a member.
func (w *Writer) Key(k string) *Writer {
	w.Next().Str(k)
	w.buf = append(w.buf, ':')
	if w.pretty {
		w.buf = append(w.buf, ' ')
	}
	return w
}

// Str writes a JSON string (RFC 8259 section 7).
func (w *Writer) Str(s string) *Writer {
	const hex = "0123456789abcdef"
	if !utf8.ValidString(s) {
		w.err = errText
	}
	b := append(w.buf, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	w.buf = append(b, '"')
	return w
}

// Int writes a number.
func (w *Writer) Int(n int64) *Writer { w.buf = strconv.AppendInt(w.buf, n, 10); return w }

// Strings writes a list on one line.
func (w *Writer) Strings(list []string) *Writer { writeLine(w, &list, writeText); return w }

func writeText[T ~string](w *Writer, v *T) { w.Str(string(*v)) }

func writeBool[T ~bool](w *Writer, v *T) { w.buf = strconv.AppendBool(w.buf, bool(*v)) }

func writeInt[T ~int | ~int8 | ~int16 | ~int32 | ~int64](w *Writer, v *T) { w.Int(int64(*v)) }

func writeUint[T ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64](w *Writer, v *T) {
	w.buf = strconv.AppendUint(w.buf, uint64(*v), 10)
}

func writeAny(w *Writer, v *any) {
	text, err := json.Marshal(*v)
	if err != nil {
		w.err = err
	}
	w.buf = append(w.buf, text...)
}

func writePointer[T any](w *Writer, v **T, of func(*Writer, *T)) {
	switch {
	case *v == nil:
		w.buf = append(w.buf, "null"...)
	case w.ready == any(*v):
		w.buf = append(w.buf, w.text...)
	default:
		of(w, *v)
	}
}

func writeList[T any](w *Writer, v *[]T, of func(*Writer, *T)) {
	w.Open('[')
	for i := range *v {
		of(w.Next(), &(*v)[i])
	}
	w.Close(']')
}

// writeRows is writeList with each element on a line of its own.
func writeRows[T any](w *Writer, v *[]T, of func(*Writer, *T)) {
	w.Open('[')
	for i := range *v {
		w.Next().row = true
		of(w, &(*v)[i])
	}
	w.Close(']')
}

// writeLine is writeList with all elements on one line.
func writeLine[T any](w *Writer, v *[]T, of func(*Writer, *T)) {
	w.row = true
	writeList(w, v, of)
}

func writeMap[T any](w *Writer, v *map[string]T, of func(*Writer, *T)) {
	w.Open('{')
	for _, k := range slices.Sorted(maps.Keys(*v)) {
		one := (*v)[k]
		of(w.Key(k), &one)
	}
	w.Close('}')
}
