// Command gendocs writes the documents that are generated from tables in the
// code: errors.md from spec/fault; host-setup.md from shim/doctor; request.md, response.md and the JSON
// Schemas from spec; cli.md and the pages of man from the help texts of capsulectl and capsuled. It is run by `make generate`; a test of it fails when a
// document in the tree is stale.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("o", "docs", "docs directory of the tree, to write to")
	flag.Parse()
	if err := generate(filepath.Join(*dir, ".."), *dir); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

// generate writes every document below dir; root is the top of the tree. Pages of
// verbs that are gone go too.
func generate(root, dir string) error {
	documents, err := render(root)
	if err != nil {
		return err
	}
	pages := filepath.Join(dir, "man")
	if err := os.RemoveAll(pages); err != nil {
		return err
	}
	if err := os.Mkdir(pages, 0o755); err != nil {
		return err
	}
	for _, d := range documents {
		if err := os.WriteFile(filepath.Join(dir, d.name), d.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
