package history

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// recordVersion is the first byte of a record's payload.
const recordVersion = 1

// Record is an ended execution.
type Record struct {
	// Summary has the id, the owner and the times. Created must be after 1970.
	Summary api.Summary
	// Digest is of the request as it was given, in whatever form the supervisor
	// compares.
	Digest string
	// Request is the resolved request, JSON.
	Request []byte
	// Response is the ExecutionResponse without stdout and stderr, JSON.
	Response []byte
	// StdoutBytes and StderrBytes are the lengths of what Output returns. Put
	// wants them with StdoutFrom and StderrFrom alone.
	StdoutBytes, StderrBytes int64
	// OutputDropped: there was output, and Retain dropped it. Put ignores it.
	OutputDropped bool
}

// Entry is a record with its output.
type Entry struct {
	Record
	Stdout, Stderr []byte
	// StdoutFrom and StderrFrom are where output is that is not to be in memory;
	// Stdout and Stderr are nil then.
	StdoutFrom, StderrFrom io.ReaderAt
	// Times is what Times returns; it goes when the output goes.
	Times []byte
}

// head is the part of a record that lists need.
type head struct {
	Summary api.Summary `json:"summary"`
	Digest  string      `json:"digest"`
	Stdout  int64       `json:"stdout_bytes"`
	Stderr  int64       `json:"stderr_bytes"`
	// Dropped came later: heads that were written before have none.
	Dropped bool `json:"output_dropped,omitempty"`
}

// key orders records by creation, then id.
type key [24]byte

func keyOf(created time.Time, id uuid.UUID) (k key) {
	binary.BigEndian.PutUint64(k[:8], uint64(created.UnixNano()))
	copy(k[8:], id[:])
	return k
}

// parseKey tells the two halves of a key apart.
func parseKey(k []byte) (created time.Time, id uuid.UUID, ok bool) {
	if len(k) != len(key{}) {
		return time.Time{}, id, false
	}
	copy(id[:], k[8:])
	return time.Unix(0, int64(binary.BigEndian.Uint64(k))).UTC(), id, true
}

// parseID accepts the one spelling of an id that there is.
func parseID(id string) (uuid.UUID, error) {
	parsed, err := uuid.Parse(id)
	if err != nil || parsed.String() != id {
		return parsed, fault.New(fault.InvalidValue, "look up execution", "the id is not a UUID in lower case").WithField("/execution_id")
	}
	return parsed, nil
}

// checksumBytes is how long the checksum before a value is.
const checksumBytes = 4

// checksum is CRC-32C of name and payload.
func checksum(name, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, name), table, payload)
}

// seal puts the checksum of name and payload before the payload.
func seal(name, payload []byte) []byte {
	sealed := make([]byte, checksumBytes, checksumBytes+len(payload))
	binary.BigEndian.PutUint32(sealed, checksum(name, payload))
	return append(sealed, payload...)
}

// unseal returns the payload, which shares memory with sealed.
func unseal(name, sealed []byte) ([]byte, error) {
	switch {
	case sealed == nil:
		return nil, errors.New("it is missing")
	case len(sealed) < checksumBytes || binary.BigEndian.Uint32(sealed) != checksum(name, sealed[checksumBytes:]):
		return nil, errors.New("its checksum is wrong")
	}
	return sealed[checksumBytes:], nil
}

// encodeHead is the value of a record under k.
func encodeHead(k key, h *head) ([]byte, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "encode record", err)
	}
	return seal(k[:], append([]byte{recordVersion}, data...)), nil
}

// decodeHead reads the value of a record. Errors: StateUnreadable.
func decodeHead(k, value []byte) (*head, error) {
	created, id, ok := parseKey(k)
	if !ok {
		return nil, unreadable("", errors.New("its key has the wrong length"))
	}
	payload, err := unseal(k, value)
	if err != nil {
		return nil, unreadable(id.String(), err)
	}
	if len(payload) == 0 || payload[0] != recordVersion {
		return nil, unreadable(id.String(), errors.New("it has an unknown version"))
	}
	h := &head{}
	if err := json.Unmarshal(payload[1:], h); err != nil {
		return nil, unreadable(id.String(), err)
	}
	if h.Summary.ID != id.String() || !h.Summary.Created.Equal(created) || h.Stdout < 0 || h.Stderr < 0 {
		return nil, unreadable(id.String(), errors.New("it contradicts its key"))
	}
	return h, nil
}

func unreadable(id string, cause error) *fault.Fault {
	f := fault.Wrap(fault.StateUnreadable, "read record", cause)
	if id != "" {
		f.Op = "read record of execution " + id
		f.Details = map[string]any{"execution_id": id}
	}
	return f
}

func notFound(id string) *fault.Fault {
	f := fault.New(fault.NotFound, "look up execution "+id, "the history does not have it")
	f.Details = map[string]any{"execution_id": id}
	return f
}

// notKept is what readers of an output get that Retain dropped.
func notKept(id string) *fault.Fault {
	f := fault.New(fault.NotFound, "read output of execution "+id, "the output is no longer kept").
		WithHint("Read output sooner, or have capsuled keep more of it with --history-output-bytes.")
	f.Details = map[string]any{"execution_id": id}
	return f
}
