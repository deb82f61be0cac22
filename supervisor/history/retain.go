package history

import (
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
)

// EndSoon is called before Close by who cannot wait for a long Retain: it ends
// after what it is writing, and Compact does nothing. The next process goes on.
func (s *Store) EndSoon() { s.ending.Store(true) }

// Retain applies the limits, oldest first by creation, and returns the ids that
// it removed, also those before an error. The newest record stays, with its
// output, however large it is: somebody may still be waiting for it.
func (s *Store) Retain(now time.Time) (removed []string, err error) {
	removed, err = s.expire(Limits{Age: s.limits.Load().Age, Count: s.limits.Load().Count}, now)
	if err != nil {
		return removed, err
	}
	theirs, err := s.expireOwners(*s.limits.Load())
	removed = append(removed, theirs...)
	if err != nil {
		return removed, err
	}
	// Without their output more records fit into what they may take.
	if err := s.trim(); err != nil {
		return removed, err
	}
	more, err := s.expire(Limits{Bytes: s.limits.Load().Bytes}, now)
	return append(removed, more...), err
}

// expire removes what is beyond the limits.
func (s *Store) expire(l Limits, now time.Time) (removed []string, err error) {
	var ids []uuid.UUID
	err = s.db.View(func(tx *bbolt.Tx) error {
		ids = s.expired(tx, l, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	removed, _, err = s.removeAll(ids, true)
	return removed, err
}

// expired chooses what is beyond the limits.
func (s *Store) expired(tx *bbolt.Tx, l Limits, now time.Time) (ids []uuid.UUID) {
	count, bytes := s.Totals()
	c := tx.Bucket([]byte(bucketRecords)).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		created, id, ok := parseKey(k)
		over := l.Count > 0 && count > l.Count || l.Bytes > 0 && bytes > l.Bytes && count > 1
		// Nothing ends before it was created: from here on all are young enough.
		old := l.Age > 0 && now.Sub(created) > l.Age
		if !over && !old {
			break
		}
		if !over {
			// A damaged record has no other time than its creation.
			h, err := decodeHead(k, v)
			if err == nil && now.Sub(ended(&h.Summary)) <= l.Age {
				continue
			}
		}
		if !ok {
			continue
		}
		ids = append(ids, id)
		count--
		body, _ := bodySize(tx, id[:])
		bytes -= int64(len(k)+len(v)) + body
	}
	return ids
}
