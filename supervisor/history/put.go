package history

import (
	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
)

const (
	// chunkBytes is the length of all chunks of a stream but the last.
	chunkBytes = 1 << 20
	// stageBytes is how much output an entry may have before it is written in
	// transactions of its own, and what one transaction writes at most: pages
	// that are not yet committed are in memory.
	stageBytes = 8 * chunkBytes
)

// change is a write transaction with what it does to the totals.
type change struct {
	*bbolt.Tx
	totals
	remember uint64
	// owners is by how much the shares of owners change.
	owners map[uint32]share
}

// charge changes the share of an owner.
func (c *change) charge(owner uint32, count int, bytes int64) {
	have := c.owners[owner]
	c.owners[owner] = share{have.count + count, have.bytes + bytes}
}

func (c *change) bucket(name string) *bbolt.Bucket { return c.Bucket([]byte(name)) }

// operation is a change that waits for its commit.
type operation struct {
	apply func(*change) error
	size  int
	done  bool
	err   error
}

// commit runs apply in a write transaction, which it shares with the operations
// that came while the one before was syncing. size is about what it writes. A
// failing apply is run again, alone.
func (s *Store) commit(size int, apply func(*change) error) error {
	o := &operation{apply: apply, size: size}
	s.queue.Lock()
	s.pending = append(s.pending, o)
	s.queue.Unlock()
	s.writer.Lock()
	defer s.writer.Unlock()
	for !o.done {
		s.run(s.take())
	}
	return o.err
}

// take removes the first operations from the queue, as many as one transaction
// should have.
func (s *Store) take() []*operation {
	s.queue.Lock()
	defer s.queue.Unlock()
	n, size := 0, 0
	for n < len(s.pending) && (n == 0 || size+s.pending[n].size <= 2*stageBytes) {
		size += s.pending[n].size
		n++
	}
	taken := s.pending[:n:n]
	s.pending = s.pending[n:]
	return taken
}

func (s *Store) run(operations []*operation) {
	err := s.transact(operations)
	for _, o := range operations {
		if o.err = err; err != nil && len(operations) > 1 {
			o.err = s.transact([]*operation{o})
		}
		o.done = true
	}
}

// transact runs operations in one transaction: all of them, or none.
func (s *Store) transact(operations []*operation) error {
	c := change{totals: s.sums(), remember: s.remember, owners: map[uint32]share{}}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		c.Tx = tx
		before := c.totals
		for _, o := range operations {
			if err := o.apply(&c); err != nil {
				return err
			}
		}
		if c.totals == before {
			return nil
		}
		return putTotals(tx, c.totals)
	})
	if err == nil {
		s.state.Lock()
		defer s.state.Unlock()
		s.totals = c.totals
		if s.shares != nil {
			addShares(s.shares, c.owners)
		}
		if s.since != nil {
			addShares(s.since, c.owners)
		}
	}
	return err
}

// Put stores entries, all in one transaction, and returns when they are on the
// disk. An id that is known is left as it is, also when it was removed: the
// first entry stands. The bytes must not change before Put returns. Errors:
// InvalidValue, IO with a hint when there is no space, StateUnreadable.
func (s *Store) Put(entries ...Entry) error {
	ids := make([]uuid.UUID, len(entries))
	size, large := 0, false
	for i := range entries {
		e := &entries[i]
		id, err := parseID(e.Summary.ID)
		if err != nil {
			return err
		}
		if e.Summary.Created.UnixNano() <= 0 {
			return fault.New(fault.InvalidValue, "store execution", "it has no time of creation").WithField("/created")
		}
		ids[i] = id
		size += len(e.Request) + len(e.Response) + len(e.Times)
		if e.large() {
			large = true
		} else {
			size += len(e.Stdout) + len(e.Stderr)
		}
	}
	if large {
		s.large.Lock()
		defer s.large.Unlock()
		for i := range entries {
			if !entries[i].large() {
				continue
			}
			if err := s.stage(ids[i], &entries[i]); err != nil {
				return err
			}
		}
	}
	return s.commit(size, func(c *change) error {
		for i := range entries {
			if err := c.put(ids[i], &entries[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// large tells whether the output is staged.
func (e *Entry) large() bool {
	stdout, stderr := e.sizes()
	return stdout+stderr > stageBytes || e.StdoutFrom != nil || e.StderrFrom != nil
}

// put stores an entry, whose output may have been staged.
func (c *change) put(id uuid.UUID, e *Entry) error {
	if known(c.Tx, id) {
		return nil
	}
	staged := c.bucket(bucketStaging).Get(id[:]) != nil
	if staged && !e.large() {
		// Somebody stages another entry with this id: this one is first.
		if err := dropBody(c.Tx, id); err != nil {
			return err
		}
	}
	if staged {
		if err := c.bucket(bucketStaging).Delete(id[:]); err != nil {
			return err
		}
	}
	b, err := c.bucket(bucketBodies).CreateBucketIfNotExists(id[:])
	if err != nil {
		return err
	}
	pieces := []piece{{name: nameRequest, data: e.Request}, {name: nameResponse, data: e.Response}}
	if len(e.Times) > 0 {
		pieces = append(pieces, piece{name: nameTimes, data: e.Times})
	}
	if !staged || !e.large() {
		pieces = append(pieces, split(e)...)
	}
	if err := putPieces(b, id, pieces); err != nil {
		return err
	}
	k := keyOf(e.Summary.Created, id)
	stdout, stderr := e.sizes()
	value, err := encodeHead(k, &head{Summary: e.Summary, Digest: e.Digest, Stdout: stdout, Stderr: stderr})
	if err != nil {
		return err
	}
	if err := c.bucket(bucketRecords).Put(k[:], value); err != nil {
		return err
	}
	body, output := bodySize(c.Tx, id[:])
	c.count++
	c.bytes += int64(len(k)+len(value)) + body
	c.output += output
	c.charge(e.Summary.Owner, 1, int64(len(k)+len(value))+body)
	return c.bucket(bucketIDs).Put(id[:], seal(id[:], k[:8]))
}

// known tells whether id is, or was, one of an execution here.
func known(tx *bbolt.Tx, id uuid.UUID) bool {
	return tx.Bucket([]byte(bucketIDs)).Get(id[:]) != nil || tx.Bucket([]byte(bucketRemoved)).Get(id[:]) != nil
}
