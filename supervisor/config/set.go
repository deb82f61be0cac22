package config

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

// set stores a value that a file has for a key.
func (l *loader) set(k *key, dotted string, value any) {
	wrong := func(wanted string) {
		l.refuse(dotted, "must be "+wanted+", not "+kindOf(value), unitHint(dotted, value))
	}
	switch p := k.at(l.config).(type) {
	case *bool:
		v, ok := value.(bool)
		if !ok {
			wrong("true or false")
			return
		}
		*p = v
	case *int64:
		v, ok := value.(int64)
		if !ok {
			wrong("an integer")
			return
		}
		if !k.inRange(v) {
			in := ""
			if k.accepts == "" && k.max != 0 {
				in = "in " // what follows is a range
			}
			l.refuse(dotted, strconv.FormatInt(v, 10)+" is not "+in+k.bounds(), "")
			return
		}
		*p = v
	case *float64:
		l.setCores(p, dotted, value)
	case *string:
		v, ok := value.(string)
		if !ok {
			wrong("a string")
			return
		}
		*p, _ = l.text(k, dotted, v)
	case *[]string:
		list, ok := value.([]any)
		if !ok {
			wrong("an array of strings")
			return
		}
		next := make([]string, 0, len(list))
		for _, e := range list {
			v, ok := e.(string)
			if !ok {
				l.refuse(dotted, "must be an array of strings; it has "+kindOf(e), "")
				continue
			}
			if v, ok = l.text(k, dotted, v); ok {
				next = append(next, v)
			}
		}
		*p = next
	}
}

// unitHint says which number to write for a size or a time with a unit.
func unitHint(dotted string, value any) string {
	text, _ := value.(string)
	return spec.UnitHint(dotted, text)
}

func (l *loader) setCores(p *float64, dotted string, value any) {
	v, ok := value.(float64)
	if n, whole := value.(int64); whole {
		v, ok = float64(n), true
	}
	switch {
	case !ok:
		l.refuse(dotted, "must be a number, not "+kindOf(value), "")
	case math.IsNaN(v) || math.IsInf(v, 0) || v != 0 && v < 0.01:
		l.refuse(dotted, "must be 0 or at least 0.01", "")
	default:
		*p = v
	}
}

// text checks a string, and replaces variables where the key allows it.
func (l *loader) text(k *key, dotted, v string) (string, bool) {
	if k.expand {
		expanded, err := expand(v, l.lookupEnv)
		if err != nil {
			l.refuse(dotted, strconv.Quote(v)+": "+err.Error(), "Write ${NAME:default}, or set the variable.")
			return "", false
		}
		v = expanded
	}
	if k.enum != nil && !slices.Contains(k.enum, v) {
		l.refuse(dotted, strconv.Quote(v)+" is not one of "+strings.Join(k.enum, ", "), spec.SuggestNear(v, k.enum))
		return "", false
	}
	if k.rule != nil {
		if problem := k.rule(v); problem != "" {
			l.refuse(dotted, strconv.Quote(v)+" "+problem, "")
			return "", false
		}
	}
	return v, true
}

func (k *key) inRange(n int64) bool {
	switch {
	case k.unlessZero > 0:
		return n == 0 || n >= k.unlessZero
	case k.max < 0:
		return n == 0
	case k.max == 0:
		return n >= k.min
	}
	return n >= k.min && n <= k.max
}

// bounds says in words which numbers are right.
func (k *key) bounds() string {
	least := strconv.FormatInt(k.min, 10)
	switch {
	case k.accepts != "":
		return k.accepts
	case k.max == 0:
		return "at least " + least
	}
	return least + ".." + strconv.FormatInt(k.max, 10)
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a number with a fraction"
	case string:
		return "a string"
	case []any:
		return "an array"
	case map[string]any:
		return "a section"
	}
	return "a date or a time"
}

// expand replaces ${NAME} and ${NAME:default}. An unset variable without a
// default is an error; an empty one counts as unset.
func expand(s string, lookupEnv func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		inside, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", errors.New("${ is not closed")
		}
		name, otherwise, has := strings.Cut(inside, ":")
		if !isName(name) {
			return "", errors.New(strconv.Quote(name) + " is not the name of a variable")
		}
		value, ok := lookupEnv(name)
		if !ok || value == "" {
			if !has {
				return "", errors.New("the variable " + name + " is not set")
			}
			value = otherwise
		}
		b.WriteString(value)
		s = after
	}
}

func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
