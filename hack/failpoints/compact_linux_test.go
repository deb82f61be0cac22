package failpoints

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// TestDeathInCompaction kills a compaction of the history at each of its steps:
// all that was kept is there afterwards, and the next one gives the space back.
func TestDeathInCompaction(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs of its own")
	}
	names := marks(t, "../../supervisor/history/guard")
	if len(names) < 5 {
		t.Fatalf("only %d steps are marked: %v", len(names), names)
	}
	bin := build(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			kept := mostlyEmpty(t, path)
			before := size(t, path)
			driver := exec.Command(filepath.Join(bin, "driver"), "compact", path)
			driver.Env = []string{"CAPSULE_FAILPOINT=" + name}
			if out, err := driver.CombinedOutput(); driver.ProcessState == nil || driver.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the driver ended with %v, %s", err, out)
			}
			for range 2 {
				h, err := history.Open(path, history.Options{})
				if err != nil {
					t.Fatal(err)
				}
				checkKept(t, h, kept)
				if _, err := os.Lstat(path + ".compact"); !errors.Is(err, fs.ErrNotExist) {
					t.Error("half a copy is left:", err)
				}
				if _, err := h.Compact(); err != nil {
					t.Error(err)
				}
				checkKept(t, h, kept)
				if err := h.Close(); err != nil {
					t.Error(err)
				}
			}
			if after := size(t, path); after > before/2 {
				t.Errorf("the file had %d bytes and has %d", before, after)
			}
		})
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// mostlyEmpty makes a history of which most was removed, and returns the output
// of what is left, by id.
func mostlyEmpty(t *testing.T, path string) map[string][]byte {
	t.Helper()
	h, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string][]byte{}
	var unwanted []string
	for n := range 80 {
		id := uuid.NewString()
		out := bytes.Repeat(fmt.Appendf(nil, "%7d\n", n), 128<<10)
		e := history.Entry{Record: history.Record{Summary: api.Summary{ID: id, Status: "success", Created: time.Now()}, Response: []byte("{}")}, Stdout: out}
		if err := h.Put(e); err != nil {
			t.Fatal(err)
		}
		if n%8 == 0 {
			kept[id] = out
		} else {
			unwanted = append(unwanted, id)
		}
	}
	for _, id := range unwanted {
		if err := h.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	return kept
}

func checkKept(t *testing.T, h *history.Store, kept map[string][]byte) {
	t.Helper()
	if h.Damaged() != "" || h.Cut() {
		t.Fatal("the history is damaged")
	}
	if count, _ := h.Totals(); count != len(kept) {
		t.Errorf("%d are kept, want %d", count, len(kept))
	}
	for id, want := range kept {
		out, err := h.Output(id, "stdout")
		if err != nil {
			t.Error(err)
			continue
		}
		have, err := io.ReadAll(out)
		if err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s: %d bytes of %d, %v", id, len(have), len(want), err)
		}
	}
}
