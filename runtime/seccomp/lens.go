package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Lens sees of a system call what decides the answer of a shipped profile, and
// nothing else of its arguments.
type Lens struct {
	profiles []*source // in the order of Names
	// watched are the parts of arguments that some rule looks at, by call.
	watched map[string][]part
}

// part is a part of an argument that rules compare.
type part struct {
	index  uint
	mask   uint64
	values []uint64 // what they compare it with
}

// NewLens reads the shipped profiles.
func NewLens() (*Lens, error) {
	l := &Lens{watched: map[string][]part{}}
	for _, name := range Names() {
		src, err := readSource(name)
		if err != nil {
			return nil, err
		}
		l.profiles = append(l.profiles, src)
		for i := range src.Groups {
			if err := l.watch(&src.Groups[i]); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// watch notes what a group compares.
func (l *Lens) watch(g *group) error {
	for _, a := range g.Args {
		if a.Otherwise {
			continue
		}
		mask, err := a.mask()
		if err != nil {
			return err
		}
		var values []uint64
		for _, text := range a.Values {
			v, err := hexNumber(text)
			if err != nil {
				return err
			}
			values = append(values, v)
		}
		for _, call := range g.Names {
			parts := l.watched[call]
			i := slices.IndexFunc(parts, func(p part) bool { return p.index == a.Index && p.mask == mask })
			if i < 0 {
				parts, i = append(parts, part{index: a.Index, mask: mask}), len(parts)
			}
			parts[i].values = append(parts[i].values, values...)
			l.watched[call] = parts
		}
	}
	return nil
}

// See gives the parts of a call's arguments that decide what some shipped
// profile answers, as "2&0x400040=0x40,3&0xc00=0x0", and the profiles that refuse
// it. What comes after the last part whose value matters is left out: the mode of
// an open that makes no file is no argument, and holds whatever it may.
func (l *Lens) See(call string, args *[6]uint64) (decisive string, refusedBy []string) {
	parts := l.watched[call]
	n := len(parts)
	for n > 0 && l.same(call, *args, parts[n-1:]) {
		n--
	}
	text := make([]string, n)
	for i, p := range parts[:n] {
		text[i] = fmt.Sprintf("%d&%#x=%#x", p.index, p.mask, args[p.index]&p.mask)
	}
	for i, name := range Names() {
		if l.profiles[i].answer(call, args) != AnswerAllow {
			refusedBy = append(refusedBy, name)
		}
	}
	return strings.Join(text, ","), refusedBy
}

// same tells whether every profile answers alike whatever the values of parts are.
func (l *Lens) same(call string, args [6]uint64, parts []part) bool {
	all := [][6]uint64{args}
	for _, p := range parts {
		for _, base := range all {
			for _, v := range append(slices.Clone(p.values), p.other()) {
				base[p.index] = base[p.index]&^p.mask | v
				all = append(all, base)
			}
		}
	}
	for _, src := range l.profiles {
		was := src.answer(call, &args)
		for i := range all {
			if src.answer(call, &all[i]) != was {
				return false
			}
		}
	}
	return true
}

// other is a value that no rule compares the part with, or 0 when every value
// is compared.
func (p part) other() uint64 {
	for v := p.mask; v != 0; v = (v - 1) & p.mask {
		if !slices.Contains(p.values, v) {
			return v
		}
	}
	return 0
}

// answer is what the profile says to a call: AnswerAllow, AnswerKill or the
// symbol of an errno. Rules with conditions come before those that take what the
// others leave, as in the programs that are made of them.
func (s *source) answer(call string, args *[6]uint64) string {
	rest, rank := s.otherwise(), 0
	for i := range s.Groups {
		g := &s.Groups[i]
		if !slices.Contains(g.Names, call) {
			continue
		}
		holds, otherwise := g.holds(args)
		switch {
		case !holds:
		case len(g.Args) > 0 && otherwise == 0:
			return g.answer()
		case len(g.Args)-otherwise+1 > rank:
			rest, rank = g.answer(), len(g.Args)-otherwise+1
		}
	}
	return rest
}

// holds tells whether the conditions hold, and how many of them take what
// others leave.
func (g *group) holds(args *[6]uint64) (holds bool, otherwise int) {
	for _, a := range g.Args {
		if a.Otherwise {
			otherwise++
			continue
		}
		mask, err := a.mask()
		if err != nil {
			return false, 0
		}
		if !slices.ContainsFunc(a.Values, func(text string) bool {
			v, err := hexNumber(text)
			return err == nil && args[a.Index]&mask == v
		}) {
			return false, 0
		}
	}
	return true, otherwise
}

func (g *group) answer() string {
	switch {
	case g.Action == "kill":
		return AnswerKill
	case g.Errno != "":
		return g.Errno
	}
	return AnswerAllow
}

// condition of a recorded call: a part of an argument and its value.
type condition struct {
	index       uint
	mask, value uint64
}

// parseConditions reads what See has written.
func parseConditions(text string) ([]condition, error) {
	var out []condition
	for _, one := range strings.Split(text, ",") {
		left, value, ok1 := strings.Cut(one, "=")
		index, mask, ok2 := strings.Cut(left, "&")
		n, err1 := strconv.ParseUint(index, 10, 8)
		m, err2 := hexNumber(mask)
		v, err3 := hexNumber(value)
		if !ok1 || !ok2 || err1 != nil || err2 != nil || err3 != nil || n > 5 || v&^m != 0 {
			return nil, fmt.Errorf("%q is no condition on an argument", one)
		}
		out = append(out, condition{uint(n), m, v})
	}
	return out, nil
}
