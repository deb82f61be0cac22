package history

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// ReasonUnreadable is what a list has as the reason of a record that is
// damaged; its status is error. Get tells more.
const ReasonUnreadable = "state_unreadable"

// Sizes of pages.
const (
	defaultPage = 100
	maxPage     = 1000
)

// PageToken makes the token that continues a list after the execution with
// these: below it are those created before, and of the same nanosecond those
// with a smaller id.
func PageToken(created time.Time, id string) (string, error) {
	parsed, err := parseID(id)
	if err != nil {
		return "", err
	}
	k := keyOf(created, parsed)
	return base64.RawURLEncoding.EncodeToString(k[:]), nil
}

// ParsePageToken returns what PageToken was given. Errors: InvalidValue on /page.
func ParsePageToken(token string) (created time.Time, id string, err error) {
	k, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		if created, parsed, ok := parseKey(k); ok {
			return created, parsed.String(), nil
		}
	}
	return time.Time{}, "", fault.New(fault.InvalidValue, "list executions", "the page is not one that a list gave").WithField("/page")
}

// List returns one page of executions, newest first by creation, then by id
// downwards. A nil filter chooses all; one without All chooses none, as nothing
// here lives. owner says whose are shown; nil: everybody's. A record that is
// damaged is shown to those who see root's, with its id and ReasonUnreadable,
// unless the filter asks for what nobody can know of it. The token of the next
// page holds while records come and go. Errors: OutOfRange on /page_size,
// InvalidValue on /page.
func (s *Store) List(filter *api.Filter, owner func(uint32) bool) (*api.Page, error) {
	return s.list(filter, owner, nil)
}

// ListOf is List for somebody who sees one owner's executions alone.
func (s *Store) ListOf(filter *api.Filter, owner uint32) (*api.Page, error) {
	return s.list(filter, func(u uint32) bool { return u == owner }, &owner)
}

func (s *Store) list(filter *api.Filter, owner func(uint32) bool, only *uint32) (*api.Page, error) {
	if filter == nil {
		filter = &api.Filter{All: true}
	}
	size := filter.PageSize
	switch {
	case size == 0:
		size = defaultPage
	case size < 0 || size > maxPage:
		return nil, fault.New(fault.OutOfRange, "list executions", strconv.Itoa(size)+" is not within 1..1000").WithField("/page_size")
	}
	from, err := pageKey(filter.Page)
	page := &api.Page{}
	if err != nil || !filter.All {
		return page, err
	}
	c := &chooser{filter, owner, newSieve(filter.Statuses, filter.Labels, only)}
	err = s.db.View(func(tx *bbolt.Tx) error {
		page.Executions = nil
		return walkThose(tx, filter.IDPrefix, from, func(k, v []byte) bool {
			created, _, ok := parseKey(k)
			if ok && created.Before(filter.Since) {
				return false
			}
			summary, chosen := c.choose(k, v)
			if !chosen {
				return true
			}
			if len(page.Executions) == size {
				last := page.Executions[size-1]
				page.Next, _ = PageToken(last.Created, last.ID) // its id was parsed
				return false
			}
			page.Executions = append(page.Executions, *summary)
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// pageKey is the key that a token names; nil: that of the first page.
func pageKey(token string) ([]byte, error) {
	if token == "" {
		return nil, nil
	}
	created, id, err := ParsePageToken(token)
	if err != nil {
		return nil, err
	}
	parsed, err := parseID(id)
	if err != nil {
		return nil, err
	}
	k := keyOf(created, parsed)
	return k[:], nil
}

// walkDown calls f for all records below from, nil: all, the newest first, until
// it returns false.
func walkDown(tx *bbolt.Tx, from []byte, f func(k, v []byte) bool) error {
	c := tx.Bucket([]byte(bucketRecords)).Cursor()
	var k, v []byte
	if from == nil {
		k, v = c.Last()
	} else if k, _ = c.Seek(from); k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	for ; k != nil; k, v = c.Prev() {
		if !f(k, v) {
			return nil
		}
	}
	return nil
}

// prefixMost is how many ids with a prefix are looked up one by one.
const prefixMost = 1000

// walkThose is walkDown for the records whose id begins with a prefix, and
// perhaps others.
func walkThose(tx *bbolt.Tx, prefix string, from []byte, f func(k, v []byte) bool) error {
	keys, ok := keysOf(tx, prefix)
	if !ok {
		return walkDown(tx, from, f)
	}
	records := tx.Bucket([]byte(bucketRecords))
	for _, k := range keys {
		if from != nil && bytes.Compare(k, from) >= 0 {
			continue
		}
		if v := records.Get(k); v != nil && !f(k, v) {
			return nil
		}
	}
	return nil
}

// keysOf are the keys of the records whose id begins with a prefix, and perhaps
// of others, the newest first. False: they are not to be had without all
// records, be they too many or the index damaged.
func keysOf(tx *bbolt.Tx, prefix string) (keys [][]byte, ok bool) {
	digits := strings.ReplaceAll(prefix, "-", "")
	low, err := hex.DecodeString(digits[:len(digits)&^1])
	if err != nil || len(low) == 0 {
		return nil, false
	}
	c := tx.Bucket([]byte(bucketIDs)).Cursor()
	for id, sealed := c.Seek(low); id != nil && bytes.HasPrefix(id, low); id, sealed = c.Next() {
		created, err := unseal(id, sealed)
		if err != nil || len(created) != 8 || len(keys) == prefixMost {
			return nil, false
		}
		keys = append(keys, slices.Concat(created, id))
	}
	slices.SortFunc(keys, func(a, b []byte) int { return bytes.Compare(b, a) })
	return keys, true
}

// choose decodes a record and tells whether the filter chooses it.
func (c *chooser) choose(k, v []byte) (*api.Summary, bool) {
	created, id, ok := parseKey(k)
	if !ok || !c.sieve.passes(v) || c.IDPrefix != "" && !strings.HasPrefix(id.String(), c.IDPrefix) {
		return nil, false
	}
	h, err := decodeHead(k, v)
	if err != nil {
		damaged := &api.Summary{ID: id.String(), Status: string(spec.StatusError), Reason: ReasonUnreadable, Created: created}
		return damaged, (c.owner == nil || c.owner(0)) && len(c.Statuses) == 0 && len(c.Labels) == 0
	}
	return &h.Summary, (c.owner == nil || c.owner(h.Summary.Owner)) && hasLabels(&h.Summary, c.Labels) &&
		(len(c.Statuses) == 0 || slices.Contains(c.Statuses, h.Summary.Status))
}

// hasLabels tells whether s has all labels; an empty value stands for any.
func hasLabels(s *api.Summary, labels map[string]string) bool {
	for name, value := range labels {
		if have, ok := s.Labels[name]; !ok || value != "" && value != have {
			return false
		}
	}
	return true
}
