package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// maxProblems bounds what is reported at once: a hostile document of 64 MiB
// can hold millions of unknown keys.
const maxProblems = 200

// segment is one step of a path into a document: a key, or an index when
// the key is empty and element is set.
type segment struct {
	key     string
	index   int
	element bool
}

// problems collects faults, each with the place where the walk stands. The
// pointer text is made only when there is a fault to report.
type problems struct {
	at   []segment
	list fault.List
}

func (p *problems) enter(key string) { p.at = append(p.at, segment{key: key}) }
func (p *problems) enterIndex(i int) { p.at = append(p.at, segment{index: i, element: true}) }
func (p *problems) leave()           { p.at = p.at[:len(p.at)-1] }

// pointer is the JSON pointer (RFC 6901) of the place where the walk stands.
func (p *problems) pointer() string {
	var b strings.Builder
	for _, s := range p.at {
		b.WriteByte('/')
		if s.element {
			b.WriteString(strconv.Itoa(s.index))
			continue
		}
		b.WriteString(pointerToken(s.key))
	}
	return b.String()
}

// maxToken bounds a key in a pointer: the answer to a hostile document is not
// to be as long as the document.
const maxToken = 1024

// pointerToken escapes a key (RFC 6901, section 3) and cuts a very long one.
func pointerToken(key string) string {
	if len(key) > maxToken {
		key = strings.ToValidUTF8(key[:maxToken], "") + "..."
	}
	if strings.ContainsAny(key, "~/") {
		key = strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
	}
	return key
}

// put records f at the place where the walk stands. A nil f is no problem.
func (p *problems) put(f *fault.Fault) {
	if f == nil {
		return
	}
	switch {
	case len(p.list) < maxProblems:
		p.list = append(p.list, f.WithField(p.pointer()))
	case len(p.list) == maxProblems:
		p.list = append(p.list, fault.New(fault.OutOfRange, "", "more than "+strconv.Itoa(maxProblems)+" problems; the rest are not listed"))
	}
}

// full says whether nothing more is recorded.
func (p *problems) full() bool { return len(p.list) > maxProblems }

// add records a problem of the given code.
func (p *problems) add(code fault.Code, format string, args ...any) {
	p.put(fault.New(code, "", fmt.Sprintf(format, args...)))
}

// invalid makes the fault of a value of the wrong form.
func invalid(format string, args ...any) *fault.Fault {
	return fault.New(fault.InvalidValue, "", fmt.Sprintf(format, args...))
}

// shown quotes text of the caller for a message: control characters are
// escaped and the length is bounded.
func shown(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
