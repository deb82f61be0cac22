package bundle

import (
	"encoding/json"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Difference is one place in which two configurations mean different things.
type Difference struct {
	// Pointer names the place. Elements of a list whose order means nothing go by
	// what identifies them: a variable by its name, a mount by its destination.
	Pointer string `json:"pointer"`
	// A and B are what stands there; null: nothing.
	A any `json:"a"`
	B any `json:"b"`
}

// Diff lists what two configurations differ in, whatever their order and spelling:
// sets are compared as sets, and an object that is absent as the empty one that it
// means.
func Diff(a, b *specs.Spec) ([]Difference, error) {
	one, err := meaning(a)
	if err != nil {
		return nil, err
	}
	other, err := meaning(b)
	if err != nil {
		return nil, err
	}
	list := compare(nil, "", one, other)
	if x, y, differ := nesting(a, b); differ {
		list = append(list, Difference{Pointer: "/mounts", A: "in this order: " + x, B: "in this order: " + y})
	}
	return list, nil
}

// meaning is a configuration as a tree in which order and spelling mean something.
func meaning(s *specs.Spec) (map[string]any, error) {
	data, err := Encode(s)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber() // 64-bit limits
	if err := d.Decode(&tree); err != nil {
		return nil, fault.Wrap(fault.InvalidBundle, "decode config.json", err)
	}
	if p := object(tree, "process"); p != nil {
		p["env"] = keyed(p["env"], func(v any) (string, any) {
			text, _ := v.(string)
			key, value, _ := strings.Cut(text, "=")
			return key, value
		})
		p["rlimits"] = keyed(p["rlimits"], member("type"))
		if c := object(p, "capabilities"); c != nil {
			for name, set := range c {
				if c[name] = sorted(set); len(c[name].([]any)) == 0 {
					delete(c, name)
				}
			}
			if len(c) == 0 {
				delete(p, "capabilities")
			}
		}
		if u := object(p, "user"); u != nil {
			u["additionalGids"] = sorted(u["additionalGids"])
		}
	}
	for _, m := range elements(tree["mounts"]) {
		if m, ok := m.(map[string]any); ok {
			m["options"] = sorted(m["options"])
		}
	}
	tree["mounts"] = keyed(tree["mounts"], member("destination"))
	if l := object(tree, "linux"); l != nil {
		l["namespaces"] = keyed(l["namespaces"], member("type"))
		l["maskedPaths"], l["readonlyPaths"] = sorted(l["maskedPaths"]), sorted(l["readonlyPaths"])
		l["uidMappings"], l["gidMappings"] = sorted(l["uidMappings"]), sorted(l["gidMappings"])
		l["devices"] = keyed(l["devices"], member("path"))
		if l["rootfsPropagation"] == "private" || l["rootfsPropagation"] == "rprivate" {
			delete(l, "rootfsPropagation")
		}
		if c := object(l, "seccomp"); c != nil {
			c["architectures"], c["flags"] = sorted(c["architectures"]), sorted(c["flags"])
			c["syscalls"] = calls(c["syscalls"])
		}
	}
	if text, ok := object(tree, "annotations")[plan.AnnotationSkeleton].(string); ok {
		var skeleton any
		if json.Unmarshal([]byte(text), &skeleton) == nil {
			object(tree, "annotations")[plan.AnnotationSkeleton] = skeleton
		}
	}
	return tree, nil
}

func object(tree map[string]any, key string) map[string]any {
	o, _ := tree[key].(map[string]any)
	return o
}

func elements(v any) []any {
	list, _ := v.([]any)
	return list
}

// member keys an object by one of its members.
func member(name string) func(any) (string, any) {
	return func(v any) (string, any) {
		o, _ := v.(map[string]any)
		key, _ := o[name].(string)
		return key, v
	}
}

// keyed makes an object of a list; a key that stands twice gets a number.
func keyed(v any, key func(any) (string, any)) any {
	list := elements(v)
	if len(list) == 0 {
		return nil
	}
	o := make(map[string]any, len(list))
	for _, e := range list {
		name, value := key(e)
		at := name
		for n := 2; o[at] != nil; n++ {
			at = name + "#" + strconv.Itoa(n)
		}
		o[at] = value
	}
	return o
}

// calls gives each system call the rules that name it.
func calls(v any) any {
	o := map[string]any{}
	for _, rule := range elements(v) {
		r, ok := rule.(map[string]any)
		if !ok {
			continue
		}
		names := elements(r["names"])
		delete(r, "names")
		for _, name := range names {
			if name, ok := name.(string); ok {
				o[name] = append(elements(o[name]), r)
			}
		}
	}
	for name, rules := range o {
		o[name] = sorted(rules)
	}
	return o
}

// sorted is a list as a set: never nil, so that an absent one equals an empty one.
func sorted(v any) any {
	list := slices.Clone(elements(v))
	sort.Slice(list, func(i, k int) bool { return text(list[i]) < text(list[k]) })
	if list == nil {
		list = []any{}
	}
	return list
}

func text(v any) string {
	data, _ := json.Marshal(v) // it came out of JSON
	return string(data)
}

// compare walks two trees side by side.
func compare(list []Difference, at string, a, b any) []Difference {
	one, isObject := a.(map[string]any)
	other, both := b.(map[string]any)
	if isObject && both {
		keys := map[string]bool{}
		for k := range one {
			keys[k] = true
		}
		for k := range other {
			keys[k] = true
		}
		names := make([]string, 0, len(keys))
		for k := range keys {
			names = append(names, k)
		}
		slices.Sort(names)
		escape := strings.NewReplacer("~", "~0", "/", "~1")
		for _, k := range names {
			list = compare(list, at+"/"+escape.Replace(k), one[k], other[k])
		}
		return list
	}
	if reflect.DeepEqual(a, b) || empty(a) && empty(b) {
		return list
	}
	return append(list, Difference{Pointer: at, A: a, B: b})
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case string:
		return v == ""
	case bool:
		return !v
	case map[string]any:
		for _, m := range v {
			if !empty(m) {
				return false
			}
		}
		return true
	}
	return false
}

// nesting finds two mounts, one within the other, that come in different orders.
func nesting(a, b *specs.Spec) (x, y string, differ bool) {
	at := map[string]int{}
	for i, m := range b.Mounts {
		at[m.Destination] = i
	}
	for i, m := range a.Mounts {
		for _, n := range a.Mounts[i+1:] {
			p, ok1 := at[m.Destination]
			q, ok2 := at[n.Destination]
			if ok1 && ok2 && p > q && (within(m.Destination, n.Destination) || within(n.Destination, m.Destination)) {
				return m.Destination + ", " + n.Destination, n.Destination + ", " + m.Destination, true
			}
		}
	}
	return "", "", false
}
