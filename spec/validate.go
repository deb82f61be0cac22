package spec

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/capsule-run/capsule/spec/fault"
)

// Validate checks everything that can be known without the host and reports
// all problems at once as a fault.List, each with the JSON pointer of its
// field: E1001, E1002, E1003, E1005 or E1006. It changes nothing and does not
// need Complete to have been called. Whether paths exist, and whether the
// host has the memory and the cores, is not looked at here.
func (r *Request) Validate() error {
	var v problems
	v.validate(r)
	return v.list.Err()
}

func (p *problems) validate(r *Request) {
	p.object(&requestObject, r)
	p.binds(&r.Isolation)
}

// object checks every field of owner.
func (p *problems) object(o *object, owner any) {
	for i := range o.fields {
		f := &o.fields[i]
		p.enter(f.name)
		p.value(f, f.at(owner))
		p.leave()
	}
}

// value checks the field at ref.
func (p *problems) value(f *field, ref any) {
	if s := text(ref); s != nil {
		p.text(f, *s)
		return
	}
	if nested, ok := owner(ref, false); ok {
		if nested != nil {
			p.object(f.object, nested)
		}
		return
	}
	switch v := ref.(type) {
	case *int64:
		p.number(f, float64(*v))
	case **int64:
		if *v != nil {
			p.number(f, float64(**v))
		}
	case **float64:
		if *v != nil {
			p.number(f, **v)
		}
	case **string:
		if *v != nil {
			p.text(f, **v)
		}
	case **Bytes:
		if *v != nil {
			p.count(f, len(**v), "bytes")
		}
	case *Seccomp:
		p.seccomp(f, v)
	default:
		p.collection(f, ref)
	}
}

// collection checks lists and maps, maps in the order of their keys so that
// the report is the same each time.
func (p *problems) collection(f *field, ref any) {
	switch v := ref.(type) {
	case *[]string:
		p.count(f, len(*v), "elements")
		for i, s := range *v {
			p.enterIndex(i)
			p.text(f, s)
			p.leave()
		}
		if f.required && len(*v) > 0 && (*v)[0] == "" {
			p.enterIndex(0)
			p.add(fault.InvalidValue, "the first element is empty")
			p.leave()
		}
	case *map[string]string:
		p.count(f, len(*v), "entries")
		for _, k := range sortedKeys(*v) {
			p.enter(k)
			p.key(f, k)
			p.text(f, (*v)[k])
			p.leave()
		}
	case *[]BindMount:
		p.count(f, len(*v), "elements")
		for i := range *v {
			p.enterIndex(i)
			p.object(f.object, &(*v)[i])
			p.leave()
		}
	case *map[string]Rlimit:
		p.rlimits(*v)
	}
}

// number checks a range. NaN and the infinities can only come from Go code.
func (p *problems) number(f *field, n float64) {
	if math.IsNaN(n) || math.IsInf(n, 0) {
		p.add(fault.InvalidValue, "is not a finite number")
	} else if n < f.min || f.max > 0 && n > f.max {
		p.add(fault.OutOfRange, "%s is not %s", plainNumber(n), f.bounds())
	}
}

// count checks the length of a list, a map or a byte string.
func (p *problems) count(f *field, n int, unit string) {
	switch {
	case f.required && n == 0:
		p.add(fault.MissingField, "is required and may not be empty")
	case f.max > 0 && n > int(f.max):
		p.add(fault.OutOfRange, "has more than %s %s", plainNumber(f.max), unit)
	}
}

// text checks one string. Max tells a string from the elements of a list,
// whose number min bounds.
func (p *problems) text(f *field, s string) {
	switch {
	case s == "" && f.min > 0 && f.max == 0:
		p.add(fault.MissingField, "is required and may not be empty")
	case f.maxBytes > 0 && len(s) > f.maxBytes:
		p.add(fault.OutOfRange, "has %d bytes, more than %d", len(s), f.maxBytes)
	case !utf8.ValidString(s):
		p.put(invalid("is not valid UTF-8").WithHint("A request is JSON, which has no other bytes: give them on stdin or in a file."))
	case strings.IndexByte(s, 0) >= 0:
		p.put(invalid("contains a NUL byte").WithHint("The kernel ends a string there: give such bytes on stdin or in a file."))
	case f.enum != nil && !slices.Contains(f.enum, s):
		p.put(invalid("%s is not one of %s", shown(s), strings.Join(f.enum, ", ")).WithHint(suggestNear(s, f.enum)))
	case f.rule != nil:
		p.put(f.rule(s))
	}
}

// key checks the key of a map entry.
func (p *problems) key(f *field, k string) {
	switch {
	case f.maxKeyBytes > 0 && len(k) > f.maxKeyBytes:
		p.add(fault.OutOfRange, "the key has %d bytes, more than %d", len(k), f.maxKeyBytes)
	case f.keyRule != nil:
		p.put(f.keyRule(k))
	}
}

func (p *problems) seccomp(f *field, s *Seccomp) {
	switch {
	case s.Custom == nil:
		p.text(f, s.Name)
	case s.Name != "":
		p.add(fault.InvalidValue, "has both a name and an object")
	case len(s.Custom) > maxSeccompBytes:
		p.add(fault.OutOfRange, "has more than %d bytes", maxSeccompBytes)
	case !strings.HasPrefix(string(s.Custom), "{") || !json.Valid(s.Custom):
		p.add(fault.InvalidValue, "is not a JSON object")
	}
}

func (p *problems) rlimits(limits map[string]Rlimit) {
	for _, name := range sortedKeys(limits) {
		p.enter(name)
		if !slices.Contains(rlimitNames, name) {
			p.put(fault.New(fault.UnknownField, "", "unknown rlimit "+shown(name)).WithHint(suggestName(name, rlimitNames)))
		} else if l := limits[name]; l.Soft > l.Hard {
			p.add(fault.OutOfRange, "soft %d is above hard %d", l.Soft, l.Hard)
		}
		p.leave()
	}
}

// binds checks what concerns the three lists of binds together.
func (p *problems) binds(i *Isolation) {
	total := len(i.ReadonlyPaths) + len(i.WritablePaths) + len(i.BindMounts)
	p.enter("isolation")
	defer p.leave()
	one := max(len(i.ReadonlyPaths), len(i.WritablePaths), len(i.BindMounts))
	if total > MaxBinds && one <= MaxBinds {
		p.add(fault.OutOfRange, "readonly_paths, writable_paths and bind_mounts have %d binds, more than %d", total, MaxBinds)
	}
	taken := make(map[string]string, total)
	p.enter("readonly_paths")
	p.targets(i.ReadonlyPaths, taken)
	p.leave()
	p.enter("writable_paths")
	p.targets(i.WritablePaths, taken)
	p.leave()
	p.enter("bind_mounts")
	for n := range i.BindMounts {
		p.enterIndex(n)
		p.enter("destination")
		p.target(i.BindMounts[n].Destination, taken)
		p.leave()
		p.leave()
	}
	p.leave()
}

func (p *problems) targets(paths []string, taken map[string]string) {
	for n, path := range paths {
		p.enterIndex(n)
		p.target(path, taken)
		p.leave()
	}
}

// target notes where a bind appears and reports the second at one place.
func (p *problems) target(path string, taken map[string]string) {
	if path == "" {
		return
	}
	if first, twice := taken[path]; twice {
		p.put(badPath(path, "is mounted twice, first by %s", first))
		return
	}
	taken[path] = p.pointer()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// plainNumber writes n without an exponent.
func plainNumber(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// bounds says the range of a number in words.
func (f *field) bounds() string {
	if f.max == 0 {
		return "at least " + plainNumber(f.min)
	}
	return "in " + plainNumber(f.min) + ".." + plainNumber(f.max)
}
