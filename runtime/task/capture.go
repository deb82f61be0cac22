package task

import (
	"io"
	"os"
	"sync"
)

// Captured is what a stream brought.
type Captured struct {
	// Kept are the bytes that are kept, Total is how many there were.
	Kept  []byte
	Total int64
}

// capture keeps the first or, with tail, the last bytes of a stream and counts all.
type capture struct {
	limit int
	tail  bool
	// over is called once, when there was more than limit. May be nil.
	over func()

	mu    sync.Mutex
	kept  []byte // with tail up to twice the limit, so that moving it costs little
	total int64
}

// read takes all that comes until the end.
func (c *capture) read(r *os.File) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{r}, make([]byte, 16<<10)) // what cannot be read any more was never written
	r.Close()
}

// Write never fails.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	before := c.total
	c.total += int64(len(p))
	if c.tail {
		c.kept = append(c.kept, p...)
		if len(c.kept) > 2*c.limit {
			c.kept = append(c.kept[:0], c.kept[len(c.kept)-c.limit:]...)
		}
	} else if room := c.limit - len(c.kept); room > 0 {
		c.kept = append(c.kept, p[:min(room, len(p))]...)
	}
	passed := before <= int64(c.limit) && c.total > int64(c.limit)
	c.mu.Unlock()
	if passed && c.over != nil {
		c.over()
	}
	return len(p), nil
}

// result is what there is so far.
func (c *capture) result() Captured {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.kept
	if c.tail && len(kept) > c.limit {
		kept = kept[len(kept)-c.limit:]
	}
	return Captured{append([]byte(nil), kept...), c.total}
}
