package task

import (
	"runtime/debug"
	"time"
)

// quiet gives memory back some time after the last call: what a call needed is much more
// than what a running container needs, and the next call may be hours away.
type quiet struct{ timer *time.Timer }

const quietAfter = 300 * time.Millisecond

func newQuiet() *quiet { return &quiet{time.AfterFunc(quietAfter, debug.FreeOSMemory)} }

func (q *quiet) soon() { q.timer.Reset(quietAfter) }
