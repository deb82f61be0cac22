package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// maxLines is where a file has more than one reason to exist.
const maxLines = 500

// source is one hand-written Go file.
type source struct {
	path string // from the root of the module
	text []byte
	file *ast.File
}

// sources parses every Go file of the tree that people write.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || path == "bin" || path == "dist"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(file) {
			all = append(all, source{path, text, file})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestFilesStayShort(t *testing.T) {
	for _, s := range sources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxLines && !strings.HasSuffix(s.path, "_test.go") {
			t.Errorf("%s has %d lines, more than %d", s.path, n, maxLines)
		}
	}
}

// TestNoInit keeps work out of the start of every process, and order out of
// the import graph.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

func TestPackageNamesSayWhatIsInside(t *testing.T) {
	vague := map[string]bool{"util": true, "utils": true, "common": true, "helper": true, "helpers": true, "types": true, "misc": true, "runtime": true}
	for _, s := range sources(t) {
		if vague[strings.TrimSuffix(s.file.Name.Name, "_test")] {
			t.Errorf("%s: a package named %s says nothing, or shadows Go's", s.path, s.file.Name.Name)
		}
	}
}

// TestPackagesSayWhy wants a package comment in every directory.
func TestPackagesSayWhy(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		dir := filepath.Dir(s.path)
		documented[dir] = documented[dir] || s.file.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// TestSystemsAreToldApartByFileName: build constraints for operating systems stand in
// file names, where a listing shows them.
func TestSystemsAreToldApartByFileName(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			b, ok := n.(*ast.BinaryExpr)
			if !ok || b.Op != token.EQL && b.Op != token.NEQ {
				return true
			}
			for _, side := range []ast.Expr{b.X, b.Y} {
				if sel, ok := side.(*ast.SelectorExpr); ok && sel.Sel.Name == "GOOS" {
					t.Errorf("%s compares GOOS; use a file suffix", s.path)
				}
			}
			return true
		})
	}
}
