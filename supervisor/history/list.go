package history

import (
	"encoding/base64"
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
	var from []byte
	if filter.Page != "" {
		created, id, err := ParsePageToken(filter.Page)
		if err != nil {
			return nil, err
		}
		parsed, err := parseID(id)
		if err != nil {
			return nil, err
		}
		k := keyOf(created, parsed)
		from = k[:]
	}
	page := &api.Page{}
	if !filter.All {
		return page, nil
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		page.Executions = nil
		return walkDown(tx, from, func(k, v []byte) bool {
			created, _, ok := parseKey(k)
			if ok && created.Before(filter.Since) {
				return false
			}
			summary, chosen := choose(filter, owner, k, v)
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

// choose decodes a record and tells whether the filter chooses it.
func choose(f *api.Filter, owner func(uint32) bool, k, v []byte) (*api.Summary, bool) {
	created, id, ok := parseKey(k)
	if !ok || !strings.HasPrefix(id.String(), f.IDPrefix) {
		return nil, false
	}
	h, err := decodeHead(k, v)
	if err != nil {
		damaged := &api.Summary{ID: id.String(), Status: string(spec.StatusError), Reason: ReasonUnreadable, Created: created}
		return damaged, (owner == nil || owner(0)) && len(f.Statuses) == 0 && len(f.Labels) == 0
	}
	return &h.Summary, (owner == nil || owner(h.Summary.Owner)) && hasLabels(&h.Summary, f.Labels) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, h.Summary.Status))
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
