package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestUpToDate fails when a table was changed without `make generate`.
func TestUpToDate(t *testing.T) {
	documents, err := render()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents {
		have, err := os.ReadFile(filepath.Join("../../docs", d.name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(have, d.content) {
			t.Errorf("docs/%s is stale: run `make generate`", d.name)
		}
	}
}

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	if err := generate(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 7 {
		t.Errorf("%d documents, %v", len(entries), err)
	}
	if err := generate(filepath.Join(dir, "absent")); err == nil {
		t.Error("a directory that does not exist is not reported")
	}
}
