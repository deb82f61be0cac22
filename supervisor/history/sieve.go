package history

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/capsule-run/capsule/supervisor/api"
)

// sieve tells from the bytes of a record that a filter does not choose it, so
// that of a long history only what it may choose is decoded: that takes a hundred
// times as long. It goes by how encodeHead writes: what it lets pass is looked at
// again, and a damaged record it may hold back is one that a filter with any of
// these conditions does not choose.
type sieve struct {
	all [][]byte // each is in the record
	any [][]byte // one of them is, if there are any
}

// newSieve is the sieve of a filter; only is the one owner whose records are
// shown, nil: there are several.
func newSieve(statuses []string, labels map[string]string, only *uint32) *sieve {
	s := &sieve{}
	if only != nil {
		s.all = append(s.all, ownerPart(*only))
	}
	for name, value := range labels {
		pair := append(quoted(name), ':')
		if value != "" {
			pair = append(pair, quoted(value)...)
		}
		s.all = append(s.all, pair)
	}
	for _, status := range statuses {
		s.any = append(s.any, append([]byte(`"status":`), quoted(status)...))
	}
	return s
}

// ownerPart is in the records of an owner; another field follows it.
func ownerPart(uid uint32) []byte {
	return []byte(`"owner_uid":` + strconv.FormatUint(uint64(uid), 10) + `,`)
}

// quoted is a string as encodeHead writes it.
func quoted(s string) []byte {
	b, _ := json.Marshal(s) // a string has no error
	return b
}

// passes tells whether a record may be chosen.
func (s *sieve) passes(v []byte) bool {
	for _, part := range s.all {
		if !bytes.Contains(v, part) {
			return false
		}
	}
	for _, part := range s.any {
		if bytes.Contains(v, part) {
			return true
		}
	}
	return len(s.any) == 0
}

// chooser is a filter with what is made of it once for a list.
type chooser struct {
	*api.Filter
	owner func(uint32) bool // nil: everybody's
	sieve *sieve
}
