package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpToDate fails when a table was changed without `make generate`.
func TestUpToDate(t *testing.T) {
	documents, err := render("../..")
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
	wanted := map[string]bool{}
	for _, d := range documents {
		wanted[d.name] = true
	}
	pages, err := os.ReadDir("../../docs/man")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if !wanted["man/"+p.Name()] {
			t.Errorf("docs/man/%s is of a verb that is not there: run `make generate`", p.Name())
		}
	}
}

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	if err := generate("../..", dir); err != nil {
		t.Fatal(err)
	}
	documents, err := render("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents {
		if have, err := os.ReadFile(filepath.Join(dir, d.name)); err != nil || !bytes.Equal(have, d.content) {
			t.Errorf("%s: %v", d.name, err)
		}
	}
	if err := generate("../..", filepath.Join(dir, "absent")); err == nil {
		t.Error("a directory that does not exist is not reported")
	}
	if err := generate(dir, dir); err == nil {
		t.Error("help texts that are not there are not reported")
	}
}

// TestManualPage holds one page against what roff wants of it.
func TestManualPage(t *testing.T) {
	h := parseHelp("capsulectl x", "Do it,\nwell.\n\nUsage:\n  capsulectl x [-a]\n\nFlags:\n  -a, --all  all of 'it'\n      --b N  b\\n\n\nExamples:\n  .x\n\nThe end.\n")
	want := ".SH NAME\ncapsulectl\\-x \\- does it\n.SH \"SYNOPSIS\"\n.nf\ncapsulectl x [\\-a]\n.fi\n.SH DESCRIPTION\nDo it,\nwell.\n" +
		".SH \"FLAGS\"\n.TP\n\\fB\\-a, \\-\\-all\\fR\nall of \\(aqit\\(aq\n.TP\n\\fB\\-\\-b N\\fR\nb\\en\n" +
		".SH \"EXAMPLES\"\n.nf\n\\&.x\n.fi\n.SH NOTES\nThe end.\n.SH \"SEE ALSO\"\n.BR capsulectl (1)\n"
	have := string(manualPage("capsulectl-x", "does it", &h, []string{"capsulectl"}))
	if _, have, _ = strings.Cut(have, "User Commands\"\n"); have != want {
		t.Errorf("have\n%s\nwant\n%s", have, want)
	}
}
