package shimapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

// RecordVersion is the version of Record that this package speaks.
const RecordVersion = 1

// Record is execution.json: what a supervisor knows of an execution that does
// not end with its starter. It is written before the shim is started and never
// changed. The execution's directory tells the rest: without shim.log no shim
// was ever started; with result.json it has ended.
type Record struct {
	Version     int       `json:"version"`
	ExecutionID string    `json:"execution_id"`
	Owner       uint32    `json:"owner_uid"`
	Created     time.Time `json:"created"`
	// Digest is the SHA-256 of the resolved request, hexadecimal.
	Digest  string            `json:"request_sha256"`
	Command []string          `json:"command"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Limits as the request has them.
	MemoryBytes int64 `json:"memory_bytes"`
	MaxPids     int64 `json:"max_pids"`
	// TimeoutMS is timeout_ms and grace_ms together; 0: an older capsule wrote it.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
	// How it was started: see api.StartRequest.
	StreamStdin      bool `json:"stream_stdin,omitempty"`
	KillOnDisconnect bool `json:"kill_on_disconnect,omitempty"`
	// HoldOutput is not recorded: who would come for it is gone with the supervisor.
	HoldOutput bool `json:"-"`
	// InlineStdin tells that the request has stdin; it is not recorded either.
	InlineStdin bool `json:"-"`
}

// Write records it in the execution's directory.
func (r *Record) Write(dir layout.Dir) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fault.Wrap(fault.IO, "encode record", err)
	}
	return layout.WriteFile(dir.Record(), append(data, '\n'))
}

// ReadRecord reads the record of the execution whose id is the name of dir.
// os.ErrNotExist: it has none, or is gone. E6006: it is damaged, another
// execution's, or of an unknown version.
func ReadRecord(dir layout.Dir) (*Record, error) {
	data, err := os.ReadFile(dir.Record())
	if err != nil {
		return nil, err
	}
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fault.Wrap(fault.StateUnreadable, "decode record", err).WithPath(dir.Record())
	}
	switch {
	case r.Version != RecordVersion:
		return nil, fault.New(fault.StateUnreadable, "decode record", "unknown version").WithPath(dir.Record())
	case r.ExecutionID != filepath.Base(string(dir)):
		// Paths are made of the id: another one would lead elsewhere.
		return nil, fault.New(fault.StateUnreadable, "decode record", "it is another execution's").WithPath(dir.Record())
	case r.Created.UnixNano() <= 0:
		return nil, fault.New(fault.StateUnreadable, "decode record", "it has no time of creation").WithPath(dir.Record())
	}
	return r, nil
}
