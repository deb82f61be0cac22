package main

import (
	"encoding/json"
	"errors"

	"github.com/capsule-run/capsule/supervisor/auditlog"
	"github.com/capsule-run/capsule/supervisor/config"
)

// bound takes over when to rotate.
func (a *audit) bound(c *config.Config) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.most, a.keep = c.Security.AuditMaxBytes, c.Security.AuditKeep
}

// rotate begins a new file when n more bytes are too many for this one: NAME
// becomes NAME.1, that NAME.2 and so on, and the last goes. The lock is held.
func (a *audit) rotate(n int64) error {
	if a.most == 0 {
		return nil
	}
	info, err := a.file.Stat()
	if err != nil || info.Size() == 0 || info.Size()+n <= a.most {
		return err
	}
	if err := auditlog.Shift(a.path, a.keep); err != nil {
		return err
	}
	next, err := auditlog.Open(a.path)
	if err != nil {
		return err // lines go on into what is NAME.1 now
	}
	old := a.file
	a.file = next
	return errors.Join(old.Sync(), old.Close())
}

// commandOf is the command of a request that was refused, as far as it can be read.
func commandOf(request []byte) []string {
	var r struct {
		Command []string `json:"command"`
	}
	if json.Unmarshal(request, &r) != nil {
		return nil
	}
	return r.Command
}
