package history

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

const (
	// rememberedIDs is how many ids of removed executions are remembered.
	rememberedIDs = 100_000
	// removeBatch is how many records one transaction removes.
	removeBatch = 128
)

// Remove forgets an execution, also a damaged one; its id stays known. Errors:
// NotFound, InvalidValue when id is none.
func (s *Store) Remove(id string) error {
	parsed, err := parseID(id)
	if err != nil {
		return err
	}
	return s.commit(0, func(c *change) error {
		removed, _, err := c.remove(parsed)
		if err == nil && !removed {
			return notFound(id)
		}
		return err
	})
}

// remove takes all traces of id out of the buckets but that it was there.
func (c *change) remove(id uuid.UUID) (removed bool, freed int64, err error) {
	k, h, err := locate(c.Tx, id)
	records := c.bucket(bucketRecords)
	if err != nil && records.Get(k[:]) == nil {
		// The index does not lead to it; whoever removes it saw it in a list.
		k = c.search(id)
	}
	if v := records.Get(k[:]); v != nil {
		body, output := bodySize(c.Tx, id[:])
		freed = int64(len(k)+len(v)) + body
		if err := records.Delete(k[:]); err != nil {
			return false, 0, err
		}
		c.count--
		c.bytes -= freed
		c.output -= output
		if h != nil {
			c.charge(h.Summary.Owner, -1, -freed)
		}
	} else if errors.Is(err, &fault.Fault{Code: fault.NotFound}) {
		return false, 0, nil
	}
	if err := c.bucket(bucketIDs).Delete(id[:]); err != nil {
		return false, 0, err
	}
	if err := dropBody(c.Tx, id); err != nil {
		return false, 0, err
	}
	return true, freed, c.note(id)
}

// search finds the key of a record that the index has lost. It reads all keys.
func (c *change) search(id uuid.UUID) (found key) {
	cursor := c.bucket(bucketRecords).Cursor()
	for k, _ := cursor.First(); k != nil; k, _ = cursor.Next() {
		if _, have, ok := parseKey(k); ok && have == id {
			copy(found[:], k)
			return found
		}
	}
	return found
}

// note remembers that id was handed out, and forgets the oldest beyond the bound.
func (c *change) note(id uuid.UUID) error {
	removed, order := c.bucket(bucketRemoved), c.bucket(bucketOrder)
	n, err := order.NextSequence()
	if err != nil {
		return err
	}
	number := binary.BigEndian.AppendUint64(nil, n)
	if err := removed.Put(id[:], number); err != nil {
		return err
	}
	if err := order.Put(number, id[:]); err != nil {
		return err
	}
	cursor := order.Cursor()
	for k, v := cursor.First(); len(k) == 8 && n-binary.BigEndian.Uint64(k) >= c.remember; k, v = cursor.First() {
		if err := removed.Delete(v); err != nil {
			return err
		}
		if err := cursor.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes ids in bounded transactions, and returns those that were there.
func (s *Store) removeAll(ids []uuid.UUID) (removed []string, freed int64, err error) {
	for len(ids) > 0 && err == nil {
		batch := ids[:min(len(ids), removeBatch)]
		ids = ids[len(batch):]
		var done []string
		var bytes int64
		err = s.commit(0, func(c *change) error {
			done, bytes = done[:0], 0 // the commit may be tried twice
			for _, id := range batch {
				switch was, n, err := c.remove(id); {
				case err != nil:
					return err
				case was:
					done, bytes = append(done, id.String()), bytes+n
				}
			}
			return nil
		})
		if err == nil {
			removed, freed = append(removed, done...), freed+bytes
		}
	}
	return removed, freed, err
}

// Prune forgets the executions that o chooses, nil: all, of the owners that
// owner accepts, nil: of all. Damaged records go when everything goes. It returns
// their ids and the bytes that they took, also of those before an error.
func (s *Store) Prune(o *api.PruneOptions, owner func(uint32) bool) (removed []string, freed int64, err error) {
	if o == nil {
		o = &api.PruneOptions{}
	}
	var ids []uuid.UUID
	those := newSieve(nil, o.Labels, nil)
	err = s.db.View(func(tx *bbolt.Tx) error {
		return walkDown(tx, nil, func(k, v []byte) bool {
			if !those.passes(v) {
				return true
			}
			_, id, ok := parseKey(k)
			h, err := decodeHead(k, v)
			switch {
			case !ok:
			case err != nil:
				if (owner == nil || owner(0)) && o.Before.IsZero() && len(o.Labels) == 0 {
					ids = append(ids, id)
				}
			case (owner == nil || owner(h.Summary.Owner)) && hasLabels(&h.Summary, o.Labels) &&
				(o.Before.IsZero() || ended(&h.Summary).Before(o.Before)):
				ids = append(ids, id)
			}
			return true
		})
	})
	if err != nil {
		return nil, 0, err
	}
	return s.removeAll(ids)
}

// ended is when an execution ended; one that never ran has only its creation.
func ended(s *api.Summary) time.Time {
	if s.Completed.IsZero() {
		return s.Created
	}
	return s.Completed
}
