package history

import (
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

// expireOwners removes the oldest records of owners who have too many. The
// newest of each stays, however large it is.
func (s *Store) expireOwners(l Limits) (removed []string, err error) {
	if l.Owners.Count == 0 && l.Owners.Bytes == 0 {
		return nil, nil
	}
	var ids []uuid.UUID
	err = s.db.View(func(tx *bbolt.Tx) error {
		ids = ownersBeyond(tx, l.Owners)
		return nil
	})
	if err != nil {
		return nil, err
	}
	removed, _, err = s.removeAll(ids)
	return removed, err
}

// ownersBeyond chooses what is beyond the bounds, counting from the newest.
func ownersBeyond(tx *bbolt.Tx, o Owners) (ids []uuid.UUID) {
	type share struct {
		count int
		bytes int64
	}
	kept := map[uint32]share{}
	c := tx.Bucket([]byte(bucketRecords)).Cursor()
	for k, v := c.Last(); k != nil; k, v = c.Prev() {
		_, id, ok := parseKey(k)
		h, err := decodeHead(k, v)
		if !ok || err != nil || h.Summary.Owner == 0 || h.Summary.Owner == o.Exempt {
			continue // whose a damaged record is nobody knows
		}
		body, _ := bodySize(tx, id[:])
		s := kept[h.Summary.Owner]
		s.count++
		s.bytes += int64(len(k)+len(v)) + body
		if s.count > 1 && (o.Count > 0 && s.count > o.Count || o.Bytes > 0 && s.bytes > o.Bytes) {
			ids = append(ids, id)
		}
		kept[h.Summary.Owner] = s
	}
	return ids
}
