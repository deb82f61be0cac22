package bundle

import (
	"errors"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// Pointed gives every fault about a configuration the JSON pointer (RFC 6901) of
// its field in config.json in place of the dotted path, as callers know it.
// Faults about a request, which have a pointer already, stay as they are.
func Pointed(err error) error {
	var list fault.List
	if errors.As(err, &list) {
		all := make(fault.List, len(list))
		for i, f := range list {
			all[i] = pointed(f)
		}
		return all
	}
	var one *fault.Fault
	if errors.As(err, &one) {
		return pointed(one)
	}
	return err
}

func pointed(f *fault.Fault) *fault.Fault {
	if f.Field == "" || f.Field[0] == '/' {
		return f
	}
	with := *f
	with.Field = Pointer(f.Field)
	return &with
}

// Pointer is the JSON pointer of a dotted path: "mounts[3].options" is
// "/mounts/3/options".
func Pointer(dotted string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	// The keys of these have dots of their own.
	for _, object := range []string{"annotations", "linux.sysctl"} {
		if key, ok := strings.CutPrefix(dotted, object+"."); ok {
			return "/" + strings.ReplaceAll(object, ".", "/") + "/" + escape.Replace(key)
		}
	}
	var b strings.Builder
	for part := range strings.SplitSeq(dotted, ".") {
		name, index, _ := strings.Cut(part, "[")
		b.WriteString("/" + escape.Replace(name))
		for index != "" {
			var n string
			n, index, _ = strings.Cut(index, "]")
			b.WriteString("/" + n)
			index = strings.TrimPrefix(index, "[")
		}
	}
	return b.String()
}
