package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// helpText is a help text of a program, taken apart. A section is a heading at
// the margin that ends with a colon, with indented lines below.
type helpText struct {
	// name is "capsulectl run".
	name string
	// chapter of the manual; empty: 1.
	chapter string
	// about is the text before the first section, after what follows later ones.
	about    []string
	sections []helpSection
	after    []string
}

type helpSection struct {
	heading string
	// lines have lost two spaces of indentation.
	lines []string
}

// flags says that the section lists flags.
func (s *helpSection) flags() bool { return strings.HasPrefix(strings.TrimLeft(s.lines[0], " "), "-") }

// flag takes a line of a list apart.
func flagLine(line string) (spelling, usage string) {
	spelling, usage, _ = strings.Cut(strings.TrimLeft(line, " "), "  ")
	return spelling, strings.TrimSpace(usage)
}

// parseHelp takes a help text apart.
func parseHelp(name, text string) helpText {
	h := helpText{name: name}
	paragraph := func() *[]string {
		if len(h.sections) == 0 {
			return &h.about
		}
		return &h.after
	}
	open := false // lines may join the paragraph
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		switch {
		case line == "":
			open = false
		case strings.HasPrefix(line, "  ") && len(h.sections) > 0:
			last := &h.sections[len(h.sections)-1]
			last.lines = append(last.lines, line[2:])
		case strings.HasSuffix(line, ":") && !open:
			h.sections = append(h.sections, helpSection{heading: strings.TrimSuffix(line, ":")})
		case open:
			p := *paragraph()
			p[len(p)-1] += "\n" + line
		default:
			p := paragraph()
			*p = append(*p, line)
			open = true
		}
	}
	return h
}

// helpTexts are those of capsulectl and of its verbs, in its own order. The
// golden files that the tests of capsulectl keep fresh are the source, because a
// program cannot be imported.
func helpTexts(dir string) ([]helpText, error) {
	read := func(name, file string) (helpText, error) {
		text, err := os.ReadFile(filepath.Join(dir, file+".txt"))
		if err != nil {
			return helpText{}, err
		}
		h := parseHelp(name, string(text))
		for _, s := range h.sections {
			if len(s.lines) == 0 {
				return helpText{}, fmt.Errorf("%s.txt: %q has no lines", file, s.heading)
			}
		}
		return h, nil
	}
	main, err := read("capsulectl", "help")
	if err != nil {
		return nil, err
	}
	all := []helpText{main}
	for _, s := range main.sections {
		if s.heading != "Verbs" {
			continue
		}
		for _, line := range s.lines {
			verb := strings.Fields(line)[0]
			if verb == "help" {
				continue
			}
			h, err := read("capsulectl "+verb, verb)
			if err != nil {
				return nil, err
			}
			all = append(all, h)
		}
	}
	return all, nil
}

// daemonText is that of capsuled, whose flags have their usage in a line below.
func daemonText(path string) (helpText, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return helpText{}, err
	}
	h := parseHelp("capsuled", string(text))
	h.chapter = "8"
	for i := range h.sections {
		s := &h.sections[i]
		var joined []string
		for _, line := range s.lines {
			if n := len(joined); n > 0 && strings.HasPrefix(line, "      ") {
				joined[n-1] += "  " + strings.TrimSpace(line)
				continue
			}
			joined = append(joined, line)
		}
		if s.lines = joined; len(s.lines) == 0 {
			return helpText{}, fmt.Errorf("%s: %q has no lines", path, s.heading)
		}
	}
	return h, nil
}

// daemonHelp is the golden file of capsuled, seen from the root of the tree.
const daemonHelp = "cmd/capsuled/testdata/help.txt"

// helpDir holds the golden files, seen from the root of the tree.
const helpDir = "cmd/capsulectl/testdata"

// commandLine is cli.md.
func commandLine(texts []helpText) []byte {
	var b strings.Builder
	b.WriteString("# capsulectl\n\n" + generated)
	for i, h := range texts {
		if i > 0 {
			b.WriteString("\n## " + h.name + "\n\n")
		}
		for _, p := range h.about {
			b.WriteString(escapeMarkdown(p) + "\n\n")
		}
		for _, s := range h.sections {
			if s.flags() {
				b.WriteString("| " + strings.ToLower(s.heading) + " | |\n|---|---|\n")
				for _, line := range s.lines {
					spelling, usage := flagLine(line)
					fmt.Fprintf(&b, "| `%s` | %s |\n", cell(spelling), cell(escapeMarkdown(usage)))
				}
				b.WriteString("\n")
				continue
			}
			b.WriteString(s.heading + ":\n\n```text\n" + strings.Join(s.lines, "\n") + "\n```\n\n")
		}
		for _, p := range h.after {
			b.WriteString(escapeMarkdown(p) + "\n\n")
		}
	}
	return []byte(strings.TrimRight(b.String(), "\n") + "\n")
}

// escapeMarkdown keeps what a terminal shows literally literal.
func escapeMarkdown(s string) string {
	return strings.NewReplacer("<", "&lt;", "*", `\*`, "_", `\_`).Replace(s)
}
