package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSample generates from a file with a unary and a streaming call and an
// import of a well-known type, and checks that comments and both calls arrive.
func TestSample(t *testing.T) {
	out := t.TempDir()
	if err := run(t.Context(), out, []string{"./testdata/sample.proto"}); err != nil {
		t.Fatal(err)
	}
	wants := map[string][]string{
		"sample.pb.go":       {"package samplev1", "type StateResponse struct", "// started_at is when execve returned.", "timestamppb.Timestamp"},
		"sample_ttrpc.pb.go": {"package samplev1", "State(context.Context, *StateRequest) (*StateResponse, error)", "Sample_OutputServer", "RegisterSampleService"},
	}
	for name, parts := range wants {
		path := filepath.Join(out, "testdata", name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.ParseFile(token.NewFileSet(), path, text, 0); err != nil {
			t.Errorf("%s is not Go: %v", name, err)
		}
		for _, p := range parts {
			if !strings.Contains(string(text), p) {
				t.Errorf("%s lacks %q", name, p)
			}
		}
	}
}

// TestBadProto checks that a broken file is reported with its position.
func TestBadProto(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("bad.proto", []byte("syntax = \"proto3\";\nmessage M { Missing m = 1; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), dir, []string{"bad.proto"})
	if err == nil || !strings.Contains(err.Error(), "bad.proto:2:") {
		t.Fatalf("error = %v, want one that names bad.proto:2", err)
	}
}
