package doctest

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

// root is the top of the tree.
const root = "../.."

// read gives a file of the tree.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fences are the fenced blocks of one language, without their indentation.
func fences(text, language string) []string {
	var all []string
	var block []string
	inside, wanted, indent := false, false, ""
	for line := range strings.Lines(text) {
		bare := strings.TrimLeft(line, " ")
		switch {
		case !inside && strings.HasPrefix(bare, "```"):
			inside, wanted, indent, block = true, strings.TrimSpace(bare[3:]) == language, line[:len(line)-len(bare)], nil
		case inside && strings.HasPrefix(bare, "```"):
			if inside = false; wanted {
				all = append(all, strings.Join(block, ""))
			}
		case inside:
			block = append(block, strings.TrimPrefix(line, indent))
		}
	}
	return all
}

func TestFences(t *testing.T) {
	have := fences("a\n```sh\none\n```\n* b\n\n  ```sh\n  two\n    three\n  ```\n```text\nfour\n```\n", "sh")
	if want := []string{"one\n", "two\n  three\n"}; !slices.Equal(have, want) {
		t.Errorf("have %q, want %q", have, want)
	}
}

// diagrams is how many architecture.md has: overview, a request, walls, what is
// measured, errors, platforms, tests.
const diagrams = 7

// TestDiagrams wants every package and every type in a diagram to exist.
func TestDiagrams(t *testing.T) {
	all := fences(read(t, "docs/architecture.md"), "mermaid")
	if len(all) != diagrams {
		t.Errorf("%d diagrams, want %d", len(all), diagrams)
	}
	packages := regexp.MustCompile(`\b(?:cmd|hack|runtime|shim|spec|supervisor)(?:/[a-z][a-z-]*)+\b`)
	types := regexp.MustCompile(`\b[a-z]+\.[A-Z][A-Za-z]*\b`)
	declared := exported(t)
	for _, text := range all {
		first, _, _ := strings.Cut(text, "\n")
		if kind := strings.Fields(first)[0]; kind != "flowchart" && kind != "sequenceDiagram" {
			t.Errorf("a diagram of the kind %q", kind)
		}
		for _, pair := range []string{"[]", "()", "{}"} {
			if strings.Count(text, pair[:1]) != strings.Count(text, pair[1:]) {
				t.Errorf("unbalanced %s in the diagram that begins %q", pair, first)
			}
		}
		found := packages.FindAllString(text, -1)
		for _, p := range found {
			if info, err := os.Stat(filepath.Join(root, p)); err != nil && !exists(p+".sh") || err == nil && !info.IsDir() {
				t.Errorf("a diagram names the package %s, which is not there", p)
			}
		}
		names := types.FindAllString(text, -1)
		for _, n := range names {
			if !declared[n] {
				t.Errorf("a diagram names %s, which is not there", n)
			}
		}
		if len(found)+len(names) < 3 {
			t.Errorf("the diagram that begins %q names too little of the code to be held to it", first)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

// exported are the exported names of the tree, as package.Name.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, top := range []string{"runtime", "shim", "spec", "supervisor"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() && d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, name := range declarations(file) {
				all[file.Name.Name+"."+name] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestEveryCodeIsExplained wants each code of spec/fault once, in order.
func TestEveryCodeIsExplained(t *testing.T) {
	_, text, _ := strings.Cut(read(t, "docs/troubleshooting.md"), "\n## By code\n")
	var have, want []string
	for _, m := range regexp.MustCompile(`(?m)^\| (E\d{4}) \| \S`).FindAllStringSubmatch(text, -1) {
		have = append(have, m[1])
	}
	for _, info := range fault.Table() {
		want = append(want, string(info.Code))
	}
	if !slices.Equal(have, want) {
		t.Errorf("docs/troubleshooting.md explains\n%q\nand there are\n%q", have, want)
	}
}

// TestLinks wants the links between documents to lead to files.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	link := regexp.MustCompile(`\]\(([^)\s#]+)(?:#[^)]*)?\)`)
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}
