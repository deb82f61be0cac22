// Conformance runs the OCI validation suite against capsule-oci and compares what each
// program says with a committed list. It fails when one that is listed as passing does
// not pass, and when one is not listed at all. One that passes though it is listed as
// failing is told and no failure: much of the list is about what a host has.
//
//	go run ./hack/conformance [-bin bin] [-only NAME,NAME] [-cache DIR]
//	go run ./hack/conformance -docs docs/conformance.md
//
// The suite is built from its Go module in the cache directory, outside of the tree. Each
// program runs in a mount namespace of its own, with a time limit, and what containers it
// leaves are deleted. It needs root.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	bin := flag.String("bin", "bin", "directory of capsule-oci")
	only := flag.String("only", "", "programs to run, in place of all")
	cache := flag.String("cache", "", "directory of the built suite; default: the user's cache")
	docs := flag.String("docs", "", "file to write from the list; nothing is run")
	flag.Parse()
	ok, err := run(os.Stdout, *bin, *only, *cache, *docs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(w io.Writer, bin, only, cache, docs string) (ok bool, err error) {
	list, err := expectations()
	if err != nil {
		return false, err
	}
	if docs != "" {
		return true, os.WriteFile(docs, []byte(document(list)), 0o644)
	}
	if os.Geteuid() != 0 {
		return false, errors.New("the suite needs root")
	}
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return false, err
		}
		cache = filepath.Join(dir, "capsule", "conformance")
	}
	dir, err := build(filepath.Join(cache, version))
	if err != nil {
		return false, err
	}
	programs, err := programs(dir)
	if err != nil {
		return false, err
	}
	if only != "" {
		programs = strings.Split(only, ",")
	}
	oci, err := filepath.Abs(filepath.Join(bin, "capsule-oci"))
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(oci); err != nil {
		return false, err
	}
	return compare(w, &host{dir: dir, oci: oci}, programs, list, only == "")
}

// compare runs the programs and prints a line for each.
func compare(w io.Writer, h *host, programs []string, list []expectation, all bool) (ok bool, err error) {
	ok = true
	passed := 0
	for _, name := range programs {
		want, listed := find(list, name)
		got, why, err := h.program(name)
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		if got == resultPass {
			passed++
		}
		note := want.reason
		switch {
		case !listed:
			ok, note = false, "NOT LISTED: "+why
		case want.result == resultRace:
		case want.result == resultV1 && !v1(name):
			note = "tells of controllers of cgroup v1 that the host does not have"
		case got == resultPass && want.result == resultFail:
			note = "passes here, and not where the list was made"
		case got == resultFail && want.result != resultFail:
			ok, note = false, "EXPECTED "+want.result+": "+why
		}
		fmt.Fprintf(w, "%-4s  %-34s  %s\n", got, name, note)
	}
	if all {
		for _, e := range list {
			if !contains(programs, e.name) {
				ok = false
				fmt.Fprintf(w, "gone  %s\n", e.name)
			}
		}
	}
	fmt.Fprintf(w, "%d of %d pass\n", passed, len(programs))
	return ok, nil
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}
