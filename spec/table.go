package spec

import "github.com/capsule-run/capsule/spec/fault"

// object describes one JSON object of the contract. The decoder, the
// validator, the encoder, the JSON Schema and the reference documentation are
// all driven by these tables, so that they cannot contradict one another.
// Tables hold literals only: the linker lays them out and no code runs for
// them when a program starts.
type object struct {
	// title heads the object in the documentation.
	title string
	// fields are in the order in which they are encoded. At most 64, because
	// the decoder marks the keys that it has seen in one word.
	fields []field
}

// field describes one key of an object.
type field struct {
	// name is the JSON key.
	name string
	// at gives the address of the Go field inside its owner, a pointer to the
	// struct that the object stands for. The type of that pointer decides the
	// JSON type; a pointer to a pointer accepts null.
	at func(owner any) any
	// doc is the meaning, in full sentences of Markdown.
	doc string
	// def is the default: int64, string or bool. Nil: null for what may be
	// null, otherwise empty.
	def any
	// required makes an absent value a fault, and an empty list or map.
	required bool
	// omit leaves the key out of an encoded document while it is null or empty.
	omit bool
	// orNull makes a string that is empty a null in JSON.
	orNull bool
	// min and max bound a number, the elements of a list or the entries of a
	// map. Max zero: no bound. Min 1 alone makes an empty string a fault.
	min, max float64
	// maxBytes bounds a string, or each string of a list or a map. Zero: no bound.
	maxBytes int
	// enum lists the accepted strings.
	enum []string
	// rule checks a string, or each string of a list or a map, beyond enum,
	// maxBytes and valid UTF-8 without NUL.
	rule func(string) *fault.Fault
	// keyRule checks each key of a map, beyond maxKeyBytes.
	keyRule     func(string) *fault.Fault
	maxKeyBytes int
	// accepts says in Markdown what the other columns cannot.
	accepts string
	// object describes the value, or each element of it, when it is an object.
	object *object
}

// index finds a key; -1 when the object does not have it.
func (o *object) index(name string) int {
	for i := range o.fields {
		if o.fields[i].name == name {
			return i
		}
	}
	return -1
}

// names lists the keys.
func (o *object) names() []string {
	names := make([]string, len(o.fields))
	for i := range o.fields {
		names[i] = o.fields[i].name
	}
	return names
}

// owner turns the address of a struct field that holds an object into the
// pointer that the object's table expects. For a null it gives nil, or with
// create a new value that it has stored. The second result is false when ref
// is no such address.
func owner(ref any, create bool) (any, bool) {
	switch p := ref.(type) {
	case *Resources, *Isolation, *Termination, *StreamCount, *Metrics, *Timestamps:
		return p, true
	case **IOLimits:
		return pointee(p, create), true
	case **Output:
		return pointee(p, create), true
	case **Enforcement:
		return pointee(p, create), true
	case **Error:
		return pointee(p, create), true
	case **Pressure:
		return pointee(p, create), true
	case **Timeline:
		return pointee(p, create), true
	}
	return nil, false
}

// pointee gives *p, or nil for a null unless it may be created.
func pointee[T any](p **T, create bool) any {
	if *p == nil {
		if !create {
			return nil
		}
		*p = new(T)
	}
	return *p
}

// text gives the address of a string of any of the contract's string types,
// nil when ref is none.
func text(ref any) *string {
	switch p := ref.(type) {
	case *string:
		return p
	case *Backend:
		return (*string)(p)
	case *OutputPolicy:
		return (*string)(p)
	case *Status:
		return (*string)(p)
	case *Reason:
		return (*string)(p)
	}
	return nil
}
