// Package specfields lists what a type of the OCI runtime specification can hold, for
// tests that nothing of it is passed over, also when the specification grows.
package specfields

import (
	"reflect"
	"strings"
)

// Leaves are the paths of the values that a type can hold, as JSON names them:
// "linux.namespaces[].path", "linux.sysctl{}".
func Leaves(t reflect.Type) []string { return leaves(t, "") }

func leaves(t reflect.Type, at string) (all []string) {
	switch t.Kind() {
	case reflect.Pointer:
		return leaves(t.Elem(), at)
	case reflect.Slice, reflect.Array:
		return leaves(t.Elem(), at+"[]")
	case reflect.Map:
		return leaves(t.Elem(), at+"{}")
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && name == "" {
				all = append(all, leaves(f.Type, at)...)
			} else {
				all = append(all, leaves(f.Type, strings.TrimPrefix(at+"."+name, "."))...)
			}
		}
		return all
	}
	return []string{at}
}
