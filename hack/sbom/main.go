// Command sbom writes the bill of materials of a release: a CycloneDX document
// that lists what the linker put into the given programs, by what they say of
// themselves (`go version -m`). C libraries say nothing, so that the caller names them.
//
//	sbom -name capsule -version V [-library NAME@VERSION]... PROGRAM...
//
// The same programs make the same document: it has no time and no serial number.
package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// document is the part of CycloneDX 1.6 that is used here.
type document struct {
	Schema      string      `json:"$schema"`
	BOMFormat   string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Version     int         `json:"version"`
	Metadata    metadata    `json:"metadata"`
	Components  []component `json:"components"`
	// Dependencies say which program has which component in it.
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

func main() {
	name := flag.String("name", "", "name of what is released")
	version := flag.String("version", "", "its version")
	var libraries []string
	flag.Func("library", "a C library `NAME@VERSION` that is linked into capsule-seccomp", func(s string) error {
		if n, v, ok := strings.Cut(s, "@"); !ok || n == "" || v == "" {
			return errors.New("give NAME@VERSION")
		}
		libraries = append(libraries, s)
		return nil
	})
	flag.Parse()
	if err := write(os.Stdout, *name, *version, libraries, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// write writes the document about programs to w.
func write(w io.Writer, name, version string, libraries, programs []string) error {
	if name == "" || version == "" || len(programs) == 0 {
		return errors.New("give -name, -version and programs")
	}
	d := document{Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{component{Ref: name, Type: "application", Name: name, Version: version}}}
	top := dependency{Ref: name}
	for _, program := range programs {
		if err := d.add(program, version, libraries); err != nil {
			return err
		}
		top.DependsOn = append(top.DependsOn, base(program))
	}
	d.Dependencies = append(d.Dependencies, top)
	slices.SortFunc(d.Components, func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	slices.SortFunc(d.Dependencies, func(a, b dependency) int { return cmp.Compare(a.Ref, b.Ref) })
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}

// withLibraries is the program that C libraries are linked into.
const withLibraries = "capsule-seccomp"

// add lists one program and what is in it.
func (d *document) add(path, version string, libraries []string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	program := component{Ref: base(path), Type: "application", Name: base(path), Version: version}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED", "-tags":
			program.Properties = append(program.Properties, property{"capsule:go:" + strings.TrimPrefix(s.Key, "-"), s.Value})
		}
	}
	parts := []component{{Type: "library", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
		if m.Sum != "" {
			c.Properties = []property{{"capsule:go:sum", m.Sum}} // the h1: hash of go.sum
		}
		parts = append(parts, c)
	}
	if base(path) == withLibraries {
		for _, l := range libraries {
			n, v, _ := strings.Cut(l, "@")
			parts = append(parts, component{Type: "library", Name: n, Version: v, PURL: "pkg:generic/" + l})
		}
	}
	uses := dependency{Ref: program.Ref}
	for _, c := range parts {
		c.Ref = c.PURL
		uses.DependsOn = append(uses.DependsOn, c.Ref)
		if !slices.ContainsFunc(d.Components, func(have component) bool { return have.Ref == c.Ref }) {
			d.Components = append(d.Components, c)
		}
	}
	d.Components = append(d.Components, program)
	d.Dependencies = append(d.Dependencies, uses)
	return nil
}

// base is the name of a program without its directories.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
