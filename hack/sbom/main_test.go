package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrite lists this test itself, which the linker has marked as any program.
func TestWrite(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), withLibraries)
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := write(w, "capsule", "1.2.3", []string{"libseccomp@2.5.4"}, []string{program}); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("two documents about one program differ")
	}
	var d document
	if err := json.Unmarshal(first.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	refs := map[string]bool{d.Metadata.Component.Ref: true}
	for _, c := range d.Components {
		if refs[c.Ref] {
			t.Errorf("%s twice", c.Ref)
		}
		refs[c.Ref] = true
	}
	for _, want := range []string{"capsule", withLibraries, "pkg:generic/libseccomp@2.5.4"} {
		if !refs[want] {
			t.Errorf("%s is missing", want)
		}
	}
	std := false
	for ref := range refs {
		std = std || strings.HasPrefix(ref, "pkg:golang/std@1.")
	}
	if !std {
		t.Error("the standard library is missing")
	}
	for _, dep := range d.Dependencies {
		for _, on := range append(dep.DependsOn, dep.Ref) {
			if !refs[on] {
				t.Errorf("%s depends on %s, which is not listed", dep.Ref, on)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	var w bytes.Buffer
	for _, programs := range [][]string{nil, {"main.go"}, {"absent"}} {
		if err := write(&w, "capsule", "1", nil, programs); err == nil {
			t.Errorf("%q: no error", programs)
		}
	}
	if w.Len() > 0 {
		t.Errorf("something was written: %q", &w)
	}
}
