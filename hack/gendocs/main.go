// Command gendocs writes the documents that are generated from tables in the
// code: errors.md from spec/fault; host-setup.md from shim/doctor; request.md, response.md and the JSON
// Schemas from spec. It is run by `make generate`; a test of it fails when a
// document in the tree is stale.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("o", "docs", "directory to write to")
	flag.Parse()
	if err := generate(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

// generate writes every document below dir.
func generate(dir string) error {
	documents, err := render()
	if err != nil {
		return err
	}
	for _, d := range documents {
		if err := os.WriteFile(filepath.Join(dir, d.name), d.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
