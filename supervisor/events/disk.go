package events

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"time"

	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history/guard"
)

const (
	// reserveAhead is how many numbers are reserved on the disk at once. After a
	// crash the next run begins behind them.
	reserveAhead = 1 << 20
	// batchEvents is how many events one transaction writes.
	batchEvents = 1024
	// interval is the shortest time between two transactions: each is an fsync
	// that results of executions wait for.
	interval = 100 * time.Millisecond
	// retryInterval is how long to wait after a transaction that failed.
	retryInterval = time.Second
	closeTimeout  = 5 * time.Second
)

// The bucket events has number -> event; events_meta has the two numbers.
const (
	bucketEvents = "events"
	bucketMeta   = "events_meta"
	keyReserved  = "reserved"
	keyTrimmed   = "trimmed"
)

// disk writes the log behind: one goroutine takes from the ring what is not yet
// written. What falls off the ring before is lost to the disk.
type disk struct {
	db   *guard.DB
	log  *Log
	keep int
	// count and written belong to the goroutine: events on the disk, and the
	// last one of them.
	count   int
	written uint64
	wake    chan struct{}
	stop    chan struct{}
	done    chan struct{}
	failed  error // read after done
}

// nudge wakes the goroutine; it never blocks.
func (d *disk) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// load reads the newest events and reserves the first numbers.
func (d *disk) load() error {
	l := d.log
	var events []api.Event
	var trimmed, last uint64
	err := d.db.Update(func(tx *bbolt.Tx) error {
		events, trimmed, last, d.count = nil, 0, 0, 0
		b, err := tx.CreateBucketIfNotExists([]byte(bucketEvents))
		if err != nil {
			return err
		}
		meta, err := tx.CreateBucketIfNotExists([]byte(bucketMeta))
		if err != nil {
			return err
		}
		last, trimmed = number(meta, keyReserved), number(meta, keyTrimmed)
		lost := last == 0
		gap := false
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			d.count++
			e, err := decode(k, v)
			if err != nil {
				gap = true
				continue
			}
			if gap {
				// Followers are to know of the gap, so it ends what is kept.
				gap, events, trimmed = false, nil, max(trimmed, e.Sequence-1)
			}
			if e.Sequence > trimmed {
				events = append(events, *e)
			}
			if last < e.Sequence {
				last = e.Sequence
			}
		}
		if lost && last > 0 {
			// How far numbers were reserved is damaged; this is beyond it.
			last += 2 * reserveAhead
		}
		if gap {
			events, trimmed = nil, last
		}
		return putNumber(meta, keyReserved, last+reserveAhead)
	})
	if err != nil {
		return err
	}
	for _, e := range events {
		l.insert(e)
	}
	l.trimmed = max(l.trimmed, trimmed)
	l.last, l.reserved, d.written = last, last+reserveAhead, last
	return nil
}

// write runs until close.
func (d *disk) write() {
	defer close(d.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-d.wake:
		case <-d.stop:
			d.failed = d.finish()
			return
		}
		wait := interval
		if err := d.flush(false); err != nil {
			wait = retryInterval
			d.nudge()
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-d.stop:
			d.failed = d.finish()
			return
		}
	}
}

// finish writes what is left, and gives back the numbers that were not used.
func (d *disk) finish() error { return d.flush(true) }

// flush writes all events that are not yet written, and reserves numbers when
// half of them are used; with final it reserves none instead.
func (d *disk) flush(final bool) error {
	for {
		l := d.log
		l.mu.Lock()
		events, trimmed, last, reserved := l.after(d.written, batchEvents), l.trimmed, l.last, l.reserved
		l.mu.Unlock()
		more := len(events) == batchEvents
		switch {
		case final && !more:
			reserved = last
		case reserved-last < reserveAhead/2:
			reserved = last + reserveAhead
		}
		count := d.count
		err := d.db.Update(func(tx *bbolt.Tx) (err error) {
			count, err = d.store(tx, events, trimmed, reserved)
			return err
		})
		if err != nil {
			return err
		}
		d.count = count
		if len(events) > 0 {
			d.written = events[len(events)-1].Sequence
		}
		l.mu.Lock()
		l.reserved = reserved
		l.mu.Unlock()
		if !more {
			return nil
		}
	}
}

// store is one transaction of flush. It returns how many events there are then.
func (d *disk) store(tx *bbolt.Tx, events []api.Event, trimmed, reserved uint64) (int, error) {
	b, meta := tx.Bucket([]byte(bucketEvents)), tx.Bucket([]byte(bucketMeta))
	count := d.count
	// Keys only rise: full pages need no room for more.
	b.FillPercent = 0.9
	for i := range events {
		k := binary.BigEndian.AppendUint64(nil, events[i].Sequence)
		v, err := encode(k, &events[i])
		if err != nil {
			return 0, err
		}
		if err := b.Put(k, v); err != nil {
			return 0, err
		}
		count++
	}
	c := b.Cursor()
	for k, _ := c.First(); k != nil && count > d.keep; k, _ = c.First() {
		if len(k) == 8 {
			trimmed = max(trimmed, binary.BigEndian.Uint64(k))
		}
		if err := c.Delete(); err != nil {
			return 0, err
		}
		count--
	}
	if err := putNumber(meta, keyTrimmed, trimmed); err != nil {
		return 0, err
	}
	return count, putNumber(meta, keyReserved, reserved)
}

// close ends the goroutine. A database that does not answer is left alone.
func (d *disk) close() error {
	close(d.stop)
	select {
	case <-d.done:
		return d.failed
	case <-time.After(closeTimeout):
		return fault.New(fault.IO, "write events", "the database does not answer").WithPath(d.db.Path())
	}
}

// checksum covers the key as well: an event under another number is damaged.
func checksum(k, v []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	return binary.BigEndian.AppendUint32(nil, crc32.Update(crc32.Update(0, table, k), table, v))
}

func encode(k []byte, e *api.Event) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "encode event", err)
	}
	return append(checksum(k, data), data...), nil
}

// decode reads an event. Errors: StateUnreadable.
func decode(k, v []byte) (*api.Event, error) {
	e := &api.Event{}
	var err error
	switch {
	case len(k) != 8 || len(v) < 4 || !bytes.Equal(checksum(k, v[4:]), v[:4]):
		err = errors.New("its checksum is wrong")
	default:
		if err = json.Unmarshal(v[4:], e); err == nil && e.Sequence != binary.BigEndian.Uint64(k) {
			err = errors.New("it contradicts its key")
		}
	}
	if err != nil {
		return nil, fault.Wrap(fault.StateUnreadable, "read event", err)
	}
	return e, nil
}

// number reads a number of the meta bucket; 0: it is missing or damaged.
func number(b *bbolt.Bucket, key string) uint64 {
	v := b.Get([]byte(key))
	if len(v) != 12 || !bytes.Equal(checksum([]byte(key), v[4:]), v[:4]) {
		return 0
	}
	return binary.BigEndian.Uint64(v[4:])
}

func putNumber(b *bbolt.Bucket, key string, n uint64) error {
	data := binary.BigEndian.AppendUint64(nil, n)
	return b.Put([]byte(key), append(checksum([]byte(key), data), data...))
}
