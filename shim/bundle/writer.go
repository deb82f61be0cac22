package bundle

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// writer appends JSON to buf. Every method returns the writer, so that an
// object reads as one line.
type writer struct {
	buf []byte
	// pretty puts each member on a line of its own, except inside inline
	// containers.
	pretty bool
	// depth counts open containers, flat those of them that are inline or lie
	// in one.
	depth, flat int
	// invalid is set when some text was not UTF-8.
	invalid bool
	// filter is linux.seccomp ready made; see encode.
	filter string
}

// open begins an object or an array.
func (w *writer) open(bracket byte) *writer {
	w.buf = append(w.buf, bracket)
	w.depth++
	if w.flat > 0 {
		w.flat++
	}
	return w
}

// inline begins one that stays on its line.
func (w *writer) inline(bracket byte) *writer {
	if w.flat == 0 {
		w.flat++
		w.buf = append(w.buf, bracket)
		w.depth++
		return w
	}
	return w.open(bracket)
}

// close ends what the last open or inline began.
func (w *writer) close(bracket byte) *writer {
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

// next begins an element of an array or a member of an object.
func (w *writer) next() *writer {
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

func (w *writer) newline() {
	if !w.pretty {
		return
	}
	w.buf = append(w.buf, '\n')
	for range w.depth {
		w.buf = append(w.buf, '\t')
	}
}

// key begins a member.
func (w *writer) key(k string) *writer {
	w.next().str(k)
	w.buf = append(w.buf, ':')
	if w.pretty {
		w.buf = append(w.buf, ' ')
	}
	return w
}

// str writes a JSON string (RFC 8259 section 7).
func (w *writer) str(s string) *writer {
	const hex = "0123456789abcdef"
	if !utf8.ValidString(s) {
		w.invalid = true
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

func (w *writer) uint(n uint64) *writer { w.buf = strconv.AppendUint(w.buf, n, 10); return w }

func (w *writer) uintPtr(key string, n *uint64) *writer {
	if n != nil {
		w.key(key).uint(*n)
	}
	return w
}

func (w *writer) intPtr(key string, n *int64) *writer {
	if n != nil {
		w.key(key)
		w.buf = strconv.AppendInt(w.buf, *n, 10)
	}
	return w
}

func (w *writer) intOmit(key string, n int64) *writer {
	if n != 0 {
		w.intPtr(key, &n)
	}
	return w
}

func (w *writer) boolOmit(key string, v bool) *writer {
	if v {
		w.key(key)
		w.buf = append(w.buf, "true"...)
	}
	return w
}

func (w *writer) strOmit(key, v string) *writer {
	if v != "" {
		w.key(key).str(v)
	}
	return w
}

// strings writes a list on one line, empty ones too.
func (w *writer) strings(key string, list []string) *writer {
	w.key(key).inline('[')
	for _, s := range list {
		w.next().str(s)
	}
	return w.close(']')
}

func (w *writer) stringsOmit(key string, list []string) *writer {
	return stringsAs(w, key, list)
}

// stringsAs writes a list of a string type unless it is empty.
func stringsAs[T ~string](w *writer, key string, list []T) *writer {
	if len(list) == 0 {
		return w
	}
	w.key(key).inline('[')
	for _, s := range list {
		w.next().str(string(s))
	}
	return w.close(']')
}

// mapOmit writes a map in the order of its keys unless it is empty.
func (w *writer) mapOmit(key string, m map[string]string) *writer {
	if len(m) == 0 {
		return w
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	w.key(key).open('{')
	for _, k := range keys {
		w.key(k).str(m[k])
	}
	return w.close('}')
}
