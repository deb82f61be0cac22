package history

import (
	"sync"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
)

// Owners bound what is kept of each single owner; 0: no bound.
type Owners struct {
	Count int
	Bytes int64
	// Exempt is a uid besides root's that they do not bind.
	Exempt uint32
}

// SetLimits replaces the limits. They are applied by the next Retain.
func (s *Store) SetLimits(l Limits) { s.limits.Store(&l) }

// share is what is kept of one owner.
type share struct {
	count int
	bytes int64
}

// exceeds tells whether something of the owner is to go: never the newest.
func (s share) exceeds(o Owners) bool {
	return s.count > 1 && (o.Count > 0 && s.count > o.Count || o.Bytes > 0 && s.bytes > o.Bytes)
}

// binds tells whether the bounds are for that owner.
func (o Owners) binds(uid uint32) bool { return uid != 0 && uid != o.Exempt }

// expireOwners removes the oldest records of owners who have too many. The
// newest of each stays, however large it is.
func (s *Store) expireOwners(l Limits) (removed []string, err error) {
	if l.Owners.Count == 0 && l.Owners.Bytes == 0 {
		return nil, nil
	}
	ids, err := s.beyond(l.Owners)
	if err != nil {
		return nil, err
	}
	removed, _, err = s.removeAll(ids, true)
	return removed, err
}

// beyond chooses what is beyond the bounds.
func (s *Store) beyond(o Owners) (ids []uuid.UUID, err error) {
	if err := s.countOwners(); err != nil {
		return nil, err
	}
	s.writer.Lock() // what is chosen from does not change meanwhile
	defer s.writer.Unlock()
	those, over := &sieve{}, []uint32{}
	for uid, have := range s.shares {
		if o.binds(uid) && have.exceeds(o) {
			over, those.any = append(over, uid), append(those.any, ownerPart(uid))
		}
	}
	if len(over) == 0 {
		return nil, nil
	}
	var counted map[uint32]share
	err = s.db.View(func(tx *bbolt.Tx) error {
		ids, counted = ownersBeyond(tx, o, those)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	for _, uid := range over { // without what was damaged since it was counted
		s.shares[uid] = counted[uid]
	}
	return ids, nil
}

// TotalsOf are Totals of one owner. The first time all records are read: from then on
// commits keep the shares. What cannot be read is not counted; a list tells why.
func (s *Store) TotalsOf(owner uint32) (count int, bytes int64) {
	if !s.counted() {
		_ = s.countOwners() // there is nothing then
	}
	s.state.Lock()
	defer s.state.Unlock()
	have := s.shares[owner]
	return have.count, have.bytes
}

// counted tells whether the shares of owners are known.
func (s *Store) counted() bool {
	s.state.Lock()
	defer s.state.Unlock()
	return s.shares != nil
}

// countOwners reads the shares of owners if nobody has. It looks at the records of one
// moment, and what is written meanwhile is added: others wait for it only where the file
// outgrows its mapping, is made anew or closed.
func (s *Store) countOwners() error {
	s.counting.Lock()
	defer s.counting.Unlock()
	s.writer.Lock()
	if s.shares != nil {
		s.writer.Unlock()
		return nil
	}
	s.since = map[uint32]share{}
	unlock := sync.OnceFunc(s.writer.Unlock)
	var counted map[uint32]share
	err := s.db.View(func(tx *bbolt.Tx) error {
		unlock() // tx does not see what is written from here on
		_, counted = ownersBeyond(tx, Owners{}, &sieve{})
		return nil
	})
	unlock()
	s.writer.Lock()
	defer s.writer.Unlock()
	s.state.Lock()
	defer s.state.Unlock()
	if err == nil {
		addShares(counted, s.since)
		s.shares = counted
	}
	s.since = nil
	return err
}

// addShares changes shares by others.
func addShares(shares, by map[uint32]share) {
	for owner, more := range by {
		have := shares[owner]
		shares[owner] = share{have.count + more.count, have.bytes + more.bytes}
	}
}

// ownersBeyond chooses what is beyond the bounds, counting from the newest, and
// returns the shares of the owners whose records those lets pass.
func ownersBeyond(tx *bbolt.Tx, o Owners, those *sieve) (ids []uuid.UUID, counted map[uint32]share) {
	counted = map[uint32]share{}
	c := tx.Bucket([]byte(bucketRecords)).Cursor()
	for k, v := c.Last(); k != nil; k, v = c.Prev() {
		_, id, ok := parseKey(k)
		if !ok || !those.passes(v) {
			continue
		}
		h, err := decodeHead(k, v)
		if err != nil {
			continue // whose a damaged record is nobody knows
		}
		body, _ := bodySize(tx, id[:])
		have := counted[h.Summary.Owner]
		have.count++
		have.bytes += int64(len(k)+len(v)) + body
		if o.binds(h.Summary.Owner) && have.exceeds(o) {
			ids = append(ids, id)
		}
		counted[h.Summary.Owner] = have
	}
	return ids, counted
}
