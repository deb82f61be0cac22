package output

import (
	"errors"
	"io"
	"os"
	"slices"
)

// Chunk is a run of output.
type Chunk struct {
	// Offset of Data in the stream. Where it is not the end of the chunk
	// before, the bytes between came before Subscribe and were not kept, or
	// left a tail before this subscriber replayed them.
	Offset int64
	// Data is never empty. It is lent: valid until the next call of Next or
	// Close on the same subscription, and not to be modified.
	Data []byte
}

// errDirect says that the next bytes may go from pipe to pipe.
var errDirect = errors.New("the bytes may go from pipe to pipe")

// Subscription is one reader of a live stream. It loses nothing that arrives after
// Subscribe, also beyond the limit of what is kept, and therefore holds the
// stream up: the next bytes are read when every subscriber has come back for
// them. Its methods may be called from one goroutine, Close from any, but not
// while Data is in use.
type Subscription struct {
	s *Stream
	// pos is the offset of the next byte to hand out; joined the total at Subscribe.
	pos, joined int64
	// lent: the subscriber uses a part of the stream's read buffer.
	lent   bool
	closed bool
	// keptOnly: it takes from the store and never holds the stream up.
	keptOnly bool
	buf      []byte
}

// Subscribe gives every byte from stream offset from on: first what is kept,
// then all that comes. A negative offset is 0; one beyond the present total is
// that total, so that math.MaxInt64 asks for the live bytes alone. It also
// works after Finish. The caller closes the subscription.
func (s *Stream) Subscribe(from int64) *Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &Subscription{s: s, pos: min(max(from, 0), s.total), joined: s.total}
	s.subs = append(s.subs, b)
	return b
}

// SubscribeKept gives what is kept from stream offset from on, now and as it
// comes, and never holds the stream up: bytes that are not kept, or no more
// when the subscriber comes for them, are left out, which the offsets tell.
// Otherwise it is as Subscribe.
func (s *Stream) SubscribeKept(from int64) *Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keptSubs++
	return &Subscription{s: s, pos: min(max(from, 0), s.total), keptOnly: true}
}

// Next gives the following bytes and blocks until there are some. It returns
// io.EOF when the stream has ended and all was handed out, os.ErrClosed after
// Close of the subscription or the stream, E3004 when kept bytes cannot be
// read back.
func (b *Subscription) Next() (Chunk, error) { return b.next(false) }

// next is Next. With direct it may return errDirect: b is the mover then, until it
// calls next again or is closed.
func (b *Subscription) next(direct bool) (Chunk, error) {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.lent || s.mover == b {
		b.release()
	}
	for {
		switch {
		case b.closed || s.closed:
			return Chunk{}, os.ErrClosed
		case b.keptOnly && b.pos < s.total:
			b.joined = s.total
			c, err := b.replay()
			if c.Data != nil || err != nil {
				return c, err
			}
		case b.pos < b.joined:
			c, err := b.replay()
			if c.Data != nil || err != nil {
				return c, err
			}
		case b.pos < s.total:
			return b.takeLive(), nil
		case s.ended:
			return Chunk{}, io.EOF
		case direct && b.mayMove():
			s.mover = b
			return Chunk{}, errDirect
		default:
			s.changed.Wait()
		}
	}
}

// mayMove tells whether all that comes may go to b without being read.
func (b *Subscription) mayMove() bool {
	s := b.s
	return !b.closed && !b.keptOnly && !s.ended && !s.frozen && !s.unmovable &&
		len(s.subs) == 1 && b.pos == s.total && s.total > 0 && s.store.full()
}

// Live tells whether all that was kept before Subscribe is handed out: from then on
// each chunk begins where the one before ended.
func (b *Subscription) Live() bool {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return !b.keptOnly && b.pos >= b.joined
}

// release gives back what keeps the reader from going on.
func (b *Subscription) release() {
	b.lent = false
	if b.s.mover == b {
		b.s.mover = nil
	}
	b.s.changed.Broadcast()
}

// replay hands out kept bytes from before Subscribe, or moves on where none are kept.
func (b *Subscription) replay() (Chunk, error) {
	s := b.s
	b.pos = max(b.pos, min(s.store.start(), b.joined))
	end := min(s.store.start()+s.store.kept(), b.joined)
	if b.pos >= end {
		b.moveTo(b.joined)
		return Chunk{}, nil
	}
	if b.buf == nil {
		b.buf = make([]byte, min(end-b.pos, fullRead))
	}
	n, err := s.store.readAt(b.buf[:min(end-b.pos, int64(len(b.buf)))], b.pos)
	if err != nil {
		return Chunk{}, captureFault("replay output", s.cfg.Name, err)
	}
	c := Chunk{b.pos, b.buf[:n]}
	b.moveTo(b.pos + int64(n))
	return c, nil
}

// moveTo sets the position, which may release the reader.
func (b *Subscription) moveTo(pos int64) {
	b.pos = pos
	if pos >= b.s.total {
		b.s.changed.Broadcast()
	}
}

// takeLive lends what was read last. The position is within one of the two
// chunks, since the reader does not go on before it is at their end.
func (b *Subscription) takeLive() Chunk {
	c := b.s.live
	if b.pos >= c.end() {
		c = b.s.rest
	}
	data := c.data[b.pos-c.offset:]
	out := Chunk{b.pos, data[:len(data):len(data)]}
	b.pos = c.end()
	b.lent = true
	return out
}

// Close ends the subscription and lets the stream go on without it. Further
// calls do nothing.
func (b *Subscription) Close() {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	if b.keptOnly {
		s.keptSubs--
	}
	s.subs = slices.DeleteFunc(s.subs, func(o *Subscription) bool { return o == b })
	b.release()
}
