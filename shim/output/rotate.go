package output

import "io"

// rotateBuffer is how much of the file rotate holds in memory, twice.
const rotateBuffer = 256 << 10

// readWriterAt is a file that can be rearranged in place.
type readWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// rotate rearranges the first n bytes of f in place so that the byte at first
// comes to stand at 0: a ring becomes a plain file without a second file, for
// which a tmpfs may have no room. While both parts are large it swaps blocks of the
// shorter one's size (Gries and Mills), which finishes one block each time; a part
// that fits into memory is lifted out, the other one shifted, and the first put back.
// It reads and writes about twice n.
func rotate(f readWriterAt, n, first int64) error {
	r := rotator{f: f, a: make([]byte, min(n, rotateBuffer)), b: make([]byte, min(n, rotateBuffer))}
	lo, mid, hi := int64(0), first, n
	for lo < mid && mid < hi && r.err == nil {
		left, right := mid-lo, hi-mid
		switch {
		case left <= rotateBuffer:
			r.read(r.a[:left], lo)
			r.shiftDown(mid, lo, right)
			r.write(r.a[:left], hi-left)
			return r.err
		case right <= rotateBuffer:
			r.read(r.a[:right], mid)
			r.shiftUp(lo, lo+right, left)
			r.write(r.a[:right], lo)
			return r.err
		case left <= right:
			// The first block of the right part is then at its place.
			r.swap(lo, mid, left)
			lo, mid = mid, mid+left
		default:
			r.swap(lo, mid, right)
			lo += right
		}
	}
	return r.err
}

// rotator carries the file, two buffers and the first error.
type rotator struct {
	f    readWriterAt
	a, b []byte
	err  error
}

func (r *rotator) read(p []byte, at int64) {
	if r.err != nil {
		return
	}
	n, err := r.f.ReadAt(p, at)
	if n < len(p) {
		r.err = err
	}
}

func (r *rotator) write(p []byte, at int64) {
	if r.err == nil {
		_, r.err = r.f.WriteAt(p, at)
	}
}

// swap exchanges the n bytes at x with those at y; they do not overlap.
func (r *rotator) swap(x, y, n int64) {
	for n > 0 && r.err == nil {
		k := min(n, rotateBuffer)
		r.read(r.a[:k], x)
		r.read(r.b[:k], y)
		r.write(r.a[:k], y)
		r.write(r.b[:k], x)
		x, y, n = x+k, y+k, n-k
	}
}

// shiftDown moves n bytes towards the start, from the lowest on.
func (r *rotator) shiftDown(from, to, n int64) {
	for n > 0 && r.err == nil {
		k := min(n, rotateBuffer)
		r.read(r.b[:k], from)
		r.write(r.b[:k], to)
		from, to, n = from+k, to+k, n-k
	}
}

// shiftUp moves n bytes towards the end, from the highest down.
func (r *rotator) shiftUp(from, to, n int64) {
	for n > 0 && r.err == nil {
		k := min(n, rotateBuffer)
		r.read(r.b[:k], from+n-k)
		r.write(r.b[:k], to+n-k)
		n -= k
	}
}
