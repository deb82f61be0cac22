package shimapi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

// TestReadRecord: what cannot be the record of its directory is refused, above
// all an id that leads elsewhere.
func TestReadRecord(t *testing.T) {
	const id = "6a9e4c2e-1111-4222-8333-123456789abc"
	dir := layout.Dir(filepath.Join(t.TempDir(), id))
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecord(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a record: %v", err)
	}
	now := time.Now().UTC()
	for name, r := range map[string]Record{
		"version":   {Version: 2, ExecutionID: id, Created: now},
		"no id":     {Version: 1, Created: now},
		"elsewhere": {Version: 1, ExecutionID: "../../x", Created: now},
		"no time":   {Version: 1, ExecutionID: id},
	} {
		if err := r.Write(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRecord(dir); !errors.Is(err, &fault.Fault{Code: fault.StateUnreadable}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := Record{Version: 1, ExecutionID: id, Created: now}
	if err := whole.Write(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRecord(dir); err != nil || got.ExecutionID != id {
		t.Errorf("%+v, %v", got, err)
	}
}
