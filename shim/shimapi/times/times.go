// Package times keeps when the bytes of an output stream came: a sparse index,
// bounded in size, that the shim makes while it reads and the history keeps.
package times

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

const (
	// most is how many marks an index has. Over a day of steady output the last
	// step is about a minute; over a minute of it 32 ms.
	most = 4096
	// firstStep is the step of an index that never was full.
	firstStep = time.Millisecond
)

// mark is a byte whose time is known.
type mark struct {
	offset int64
	after  time.Duration // since base
}

// Index tells when bytes came. The zero value is empty and ready. It is not
// safe for concurrent use.
type Index struct {
	base time.Time
	// step: what follows a mark, up to the next one, came less than this after it.
	step  time.Duration
	marks []mark
}

// Add notes that the byte at offset, and those that follow it, came at now. Both
// never fall. Bytes before start are of no interest any more.
func (x *Index) Add(offset, start int64, now time.Time) {
	if len(x.marks) == 0 {
		x.base, x.step = now, firstStep
		x.marks = append(x.marks, mark{offset, 0})
		return
	}
	last := x.marks[len(x.marks)-1]
	after := now.Sub(x.base)
	if after-last.after < x.step || offset <= last.offset {
		return
	}
	if len(x.marks) == most {
		x.thin(start)
		if after-x.marks[len(x.marks)-1].after < x.step {
			return
		}
	}
	x.marks = append(x.marks, mark{offset, after})
}

// thin makes room: first of marks of bytes before start, then by longer steps.
func (x *Index) thin(start int64) {
	x.marks = slices.Delete(x.marks, 0, max(x.find(start), 0))
	for len(x.marks) > most/2 {
		left := x.marks[:1]
		for _, m := range x.marks[1:] {
			// What follows m came up to a step after it, and must be within two.
			if m.after-left[len(left)-1].after > x.step {
				left = append(left, m)
			}
		}
		x.marks = left
		x.step *= 2
	}
}

// find is the number of the mark that holds for the byte at offset; -1: none.
func (x *Index) find(offset int64) int {
	i, exact := slices.BinarySearchFunc(x.marks, offset, func(m mark, o int64) int {
		switch {
		case m.offset < o:
			return -1
		case m.offset > o:
			return 1
		}
		return 0
	})
	if exact {
		return i
	}
	return i - 1
}

// At is when the byte at offset came, and the offset of the next byte of which
// something else is known. A zero time: it is not known.
func (x *Index) At(offset int64) (at time.Time, until int64) {
	i := x.find(offset)
	until = math.MaxInt64
	if i+1 < len(x.marks) {
		until = x.marks[i+1].offset
	}
	if i < 0 {
		return time.Time{}, until
	}
	return x.base.Add(x.marks[i].after).UTC(), until
}

// Since is the offset of the first byte that may have come at t or later: up to
// a step too early, and never too late. None: all came before. Of an empty
// index it is 0, as nothing is known to be older.
func (x *Index) Since(t time.Time) (offset int64, some bool) {
	if len(x.marks) == 0 {
		return 0, true
	}
	after := t.Sub(x.base)
	i, _ := slices.BinarySearchFunc(x.marks, after, func(m mark, d time.Duration) int {
		if m.after+x.step <= d {
			return -1
		}
		return 1
	})
	switch i {
	case 0:
		return 0, true
	case len(x.marks):
		return 0, false
	}
	return x.marks[i].offset, true
}

// sumBytes is the length of the checksum at the end of an encoded index.
const sumBytes = 8

// Append appends the encoded index to b: numbers of variable length, then a checksum.
func (x *Index) Append(b []byte) []byte {
	from := len(b)
	b = binary.AppendUvarint(b, uint64(len(x.marks)))
	if len(x.marks) > 0 {
		b = binary.AppendVarint(b, x.base.UnixNano())
		b = binary.AppendUvarint(b, uint64(x.step.Microseconds()))
	}
	var last mark
	for _, m := range x.marks {
		b = binary.AppendUvarint(b, uint64(m.offset-last.offset))
		b = binary.AppendUvarint(b, uint64(m.after.Microseconds()-last.after.Microseconds()))
		last = m
	}
	return binary.BigEndian.AppendUint64(b, sum(b[from:]))
}

func sum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b) // a hash does not fail
	return h.Sum64()
}

var errDamaged = errors.New("the times of output are damaged")

// Decode reads an index from the beginning of b and returns what follows it.
func Decode(b []byte) (x *Index, rest []byte, err error) {
	d := &decoder{rest: b}
	x = &Index{}
	count := d.unsigned()
	if count > most {
		return nil, nil, errDamaged
	}
	if count > 0 {
		x.base = time.Unix(0, d.signed()).UTC()
		x.step = time.Duration(d.unsigned()) * time.Microsecond
		x.marks = make([]mark, 0, count)
	}
	var last mark
	for range count {
		last.offset += int64(d.unsigned())
		last.after += time.Duration(d.unsigned()) * time.Microsecond
		if last.offset < 0 || last.after < 0 {
			return nil, nil, errDamaged
		}
		x.marks = append(x.marks, last)
	}
	used := len(b) - len(d.rest)
	if d.bad || len(d.rest) < sumBytes || binary.BigEndian.Uint64(d.rest) != sum(b[:used]) {
		return nil, nil, errDamaged
	}
	return x, d.rest[sumBytes:], nil
}

// decoder takes numbers off a slice.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) unsigned() uint64 {
	v, n := binary.Uvarint(d.rest)
	return d.take(v, n)
}

func (d *decoder) signed() int64 {
	v, n := binary.Varint(d.rest)
	return int64(d.take(uint64(v), n))
}

func (d *decoder) take(v uint64, n int) uint64 {
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}
