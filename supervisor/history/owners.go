package history

import (
	"maps"

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
	removed, _, err = s.removeAll(ids)
	return removed, err
}

// beyond chooses what is beyond the bounds. All records are read the first time
// alone: from then on commits keep the shares.
func (s *Store) beyond(o Owners) (ids []uuid.UUID, err error) {
	s.writer.Lock() // what is counted does not change meanwhile
	defer s.writer.Unlock()
	those := &sieve{}
	if s.shares != nil {
		for uid, have := range s.shares {
			if o.binds(uid) && have.exceeds(o) {
				those.any = append(those.any, ownerPart(uid))
			}
		}
		if len(those.any) == 0 {
			return nil, nil
		}
	}
	var counted map[uint32]share
	err = s.db.View(func(tx *bbolt.Tx) error {
		ids, counted = ownersBeyond(tx, o, those)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.shares == nil {
		s.shares = counted
	}
	// A record that was damaged since it was counted still was.
	maps.Copy(s.shares, counted)
	return ids, nil
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
