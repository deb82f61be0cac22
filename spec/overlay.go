package spec

import (
	"github.com/capsule-run/capsule/spec/fault"
)

// perRequest are the keys that only a request itself may have: no file decides
// what is run or what it reads.
var perRequest = [...]string{"command", "stdin"}

// Overlay decodes data, a JSON object with some keys of a request, over r: what
// a configuration file or a profile says of defaults. A key replaces the value
// of r as a whole, lists and maps included. It is as strict as DecodeRequest and
// reports as it does; command and stdin are unknown here (E1005). With an error
// r is not changed. R must not have been completed.
func (r *Request) Overlay(data []byte) error {
	next := r.detached()
	next.Command, next.Stdin = nil, nil // to see whether they are given
	d := decoder{data: data, limit: MaxDocumentBytes}
	d.document(&requestObject, &next)
	if d.fatal != nil {
		return fault.List{d.fatal}
	}
	if next.Command != nil || next.Stdin != nil {
		for _, key := range perRequest {
			if key == "command" && next.Command == nil || key == "stdin" && next.Stdin == nil {
				continue
			}
			d.enter(key)
			d.add(fault.UnknownField, "only the request itself says this")
			d.broken = append(d.broken, d.pointer())
			d.leave()
		}
	}
	d.broken = append(d.broken, "/command") // it is not here, and need not be
	var v problems
	v.validate(&next)
	for _, f := range v.list {
		if !d.reported(f.Field) {
			d.list = append(d.list, f)
		}
	}
	if err := d.list.Err(); err != nil {
		return err
	}
	next.Command, next.Stdin = r.Command, r.Stdin
	*r = next
	return nil
}

// detached is a copy into which can be decoded without changing r.
func (r *Request) detached() Request {
	next := *r
	if r.Resources.IO != nil {
		io := *r.Resources.IO
		next.Resources.IO = &io
	}
	return next
}

// SuggestName is the hint for a name that is not among candidates: the one that
// it most likely means, or all of them.
func SuggestName(name string, candidates []string) string { return suggestName(name, candidates) }

// SuggestNear is SuggestName for a message that lists the candidates. Empty: none is near.
func SuggestNear(name string, candidates []string) string { return suggestNear(name, candidates) }
