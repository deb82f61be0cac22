package cgroup

import (
	"os"
	"time"

	"github.com/capsule-run/capsule/runtime/cgroup/oom"
)

// killCount bounds the wait for the count of a kill of which the kernel has
// told: it tells before it chooses.
const killCount = time.Second

// OOMWatch waits for kills by the kernel's OOM killer in a group whose memory
// is limited on v1. On v2 memory.oom.group ends the whole group, and there is
// nothing to watch. Wait is called from one goroutine, Close once from any.
type OOMWatch struct {
	group  *Group
	events *os.File
}

// WatchOOM begins to watch; nil without a fault where the kernel needs no help.
// E2002 when the notification cannot be had.
func (g *Group) WatchOOM() (*OOMWatch, error) {
	m := g.with(Memory)
	if m == nil || m.version != 1 {
		return nil, nil
	}
	events, err := oom.Events(m.path, false)
	if err != nil {
		return nil, err
	}
	return &OOMWatch{group: g, events: events}, nil
}

// Wait is true as soon as a process of the group has been killed for want of
// memory, and false after Close or when the group is gone.
func (w *OOMWatch) Wait() bool {
	for {
		if w.counted(0) {
			return true
		}
		var n [8]byte
		if _, err := w.events.Read(n[:]); err != nil {
			return false
		}
		if w.counted(killCount) {
			return true
		}
	}
}

// counted looks for a kill in the kernel's count until patience is used up.
func (w *OOMWatch) counted(patience time.Duration) bool {
	m := w.group.with(Memory)
	var b buffer
	end := time.Now().Add(patience)
	for {
		content, err := b.read(m.path + "/" + oom.CountV1)
		if n := keyed(content, "oom_kill"); err == nil && n != nil && *n > 0 {
			return true
		}
		if err != nil || !time.Now().Before(end) {
			return false
		}
		time.Sleep(100 * time.Microsecond) // the count sends no event
	}
}

// Close ends Wait.
func (w *OOMWatch) Close() error { return w.events.Close() }
