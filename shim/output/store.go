package output

import (
	"errors"
	"io"
	"os"

	"github.com/capsule-run/capsule/spec/fault"
)

// memLimit is how many kept bytes stay in memory before the file takes over.
const memLimit = 64 << 10

// store keeps the first or the last bytes of a stream. The byte at stream
// offset p stands at p modulo limit, in memory and in the file alike; moving
// from one to the other is a plain copy. Its owner locks.
type store struct {
	dir   int
	name  string
	limit int64
	// ring keeps the last bytes, otherwise the first ones are kept.
	ring bool
	// end is the stream offset after the last byte that went in. Without a
	// ring it stops at limit.
	end int64
	// mem holds the bytes until they are spilled to the file.
	mem     []byte
	file    *os.File
	spilled bool
	// ordered: the ring in the file was unrolled, the first kept byte is at 0.
	ordered bool
	// stopped: nothing more goes in, after a failed overwrite.
	stopped bool
	err     *fault.Fault
}

// full tells whether nothing more will be kept.
func (t *store) full() bool {
	return t.stopped || t.limit == 0 || !t.ring && t.end >= t.limit
}

// kept is the number of bytes kept.
func (t *store) kept() int64 { return min(t.end, t.limit) }

// start is the stream offset of the first kept byte.
func (t *store) start() int64 { return t.end - t.kept() }

// append keeps of p what the policy allows. It never fails outwardly: the
// payload must not be stuck behind a full disk. The first fault is in err.
func (t *store) append(p []byte) {
	for len(p) > 0 && !t.full() {
		if n := int64(len(p)) - t.limit; t.ring && t.end >= t.limit && n > 0 {
			// These bytes would be overwritten by the end of p itself.
			t.end += n
			p = p[n:]
		}
		at := t.end % t.limit
		piece := p[:min(int64(len(p)), t.limit-at)]
		if !t.spilled {
			if at == memLimit {
				t.leaveMemory()
				continue
			}
			// Memory is filled to the brim first: it is what remains when the
			// file cannot be made.
			n := min(len(piece), int(memLimit-at))
			t.remember(piece[:n], at)
			p = p[n:]
			continue
		}
		n, err := t.file.WriteAt(piece, at)
		t.end += int64(n)
		p = p[n:]
		if err != nil {
			t.giveUp(err)
		}
	}
}

// remember keeps p in memory at the given place.
func (t *store) remember(p []byte, at int64) {
	n := copy(t.mem[at:], p)
	t.mem = append(t.mem, p[n:]...)
	t.end += int64(len(p))
}

// leaveMemory moves to the file; when that fails, memory is all there is.
func (t *store) leaveMemory() {
	if err := t.spill(); err != nil {
		t.fail("store output", err)
		// Memory was never wrapped, for it is smaller than the limit: the
		// places of what it holds stay the same under the new one.
		t.limit = memLimit
	}
}

// giveUp narrows the store to what a failed write left of it.
func (t *store) giveUp(err error) {
	t.fail("store output", err)
	if t.end > t.limit {
		// The ring is torn at its seam; all before it is still in order.
		t.stopped = true
		return
	}
	// The file could not grow. A ring goes on within the space that it has, a
	// head is complete as far as it goes.
	t.limit = t.end
}

// spill moves memory to the file. On failure memory stays as it is, and
// another call may try again.
func (t *store) spill() error {
	if err := t.create(); err != nil {
		return err
	}
	if _, err := t.file.WriteAt(t.mem, 0); err != nil {
		return err
	}
	t.mem, t.spilled = nil, true
	return nil
}

// create makes the file unless it is there.
func (t *store) create() (err error) {
	if t.file == nil {
		t.file, err = createAt(t.dir, t.name)
	}
	return err
}

// fail remembers the first fault.
func (t *store) fail(op string, err error) {
	if t.err == nil {
		t.err = captureFault(op, t.name, err)
	}
}

// readAt fills dst with kept bytes from stream offset pos on, which must be
// kept. It may return less than asked for, and at least one byte.
func (t *store) readAt(dst []byte, pos int64) (int, error) {
	at := pos % t.limit
	if t.ordered {
		at = pos - t.start()
	}
	n := min(int64(len(dst)), t.end-pos)
	if !t.ordered {
		n = min(n, t.limit-at)
	}
	if !t.spilled {
		return copy(dst[:n], t.mem[at:]), nil
	}
	got, err := t.file.ReadAt(dst[:n], at)
	if got > 0 {
		return got, nil
	}
	if err == io.EOF {
		// Somebody outside shortened the file.
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// read fills dst completely from stream offset pos on.
func (t *store) read(dst []byte, pos int64) error {
	for len(dst) > 0 {
		n, err := t.readAt(dst, pos)
		if err != nil {
			return err
		}
		dst, pos = dst[n:], pos+int64(n)
	}
	return nil
}

// save makes the file hold exactly the kept bytes in their order.
func (t *store) save() error {
	kept := t.kept()
	if t.file == nil && kept == 0 {
		return nil
	}
	if !t.spilled {
		if err := t.saveMemory(kept); err != nil {
			return err
		}
	} else if first := t.start() % max(t.limit, 1); first != 0 && !t.ordered {
		if err := rotate(t.file, kept, first); err != nil {
			// The order is lost half way; nothing in the file can be trusted.
			return errors.Join(err, t.drop())
		}
		t.ordered = true
	}
	return t.file.Truncate(kept)
}

// saveMemory writes what memory holds, in its order, and keeps it in memory.
func (t *store) saveMemory(kept int64) error {
	if err := t.create(); err != nil {
		return err
	}
	var at int64
	for at < kept {
		from := (t.start() + at) % t.limit
		n, err := t.file.WriteAt(t.mem[from:min(from+kept-at, t.limit, int64(len(t.mem)))], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// drop forgets everything that was kept.
func (t *store) drop() error {
	t.limit, t.stopped = 0, true
	return t.file.Truncate(0)
}

// close gives memory and descriptor back.
func (t *store) close() error {
	t.mem = nil
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}
