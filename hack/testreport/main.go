// Testreport reads the JSON stream of `go test -json` or `go tool test2json`
// and prints what a person wants of it: a line for each package as it ends,
// the output of what failed, why tests were skipped, and the counts. It exits
// with 1 when anything failed.
//
//	go test -json ./... | go run ./hack/testreport [-label NAME]
//
// With CAPSULE_TEST_STRICT=1 skips are listed one by one, otherwise summed up
// by reason.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// event is one line of the stream, as `go doc test2json` describes it.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Output     string
}

// key names a test, or a package when test is empty.
type key struct{ pkg, test string }

// report is what has been seen so far.
type report struct {
	out     io.Writer
	label   string
	output  map[key][]string
	skips   map[string]int
	build   map[string][]string
	passed  int
	failed  int
	skipped int
	// broken counts packages that failed without a failed test: build errors,
	// time-outs, crashes.
	broken int
	// failing has the packages in which a test failed.
	failing map[string]bool
}

func main() {
	label := flag.String("label", "", "what the counts are of, for the closing line")
	flag.Parse()
	r := newReport(os.Stdout, *label)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if !r.close(os.Getenv("CAPSULE_TEST_STRICT") == "1") {
		os.Exit(1)
	}
}

func newReport(out io.Writer, label string) *report {
	return &report{
		out: out, label: label,
		output: map[key][]string{}, skips: map[string]int{},
		build: map[string][]string{}, failing: map[string]bool{},
	}
}

// read consumes the stream. A line that is not JSON is something that the go
// command said by itself; it is passed on.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				r.add(e)
			} else {
				fmt.Fprintf(r.out, "%s", line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// add takes in one event.
func (r *report) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		r.build[e.ImportPath] = append(r.build[e.ImportPath], e.Output)
	case "build-fail":
		fmt.Fprint(r.out, strings.Join(r.build[e.ImportPath], ""))
	case "output":
		r.output[k] = append(r.output[k], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(k, e.Action)
		}
		delete(r.output, k)
	}
}

// endTest counts one test or subtest.
func (r *report) endTest(k key, action string) {
	switch action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
		r.skips[skipReason(k, r.output[k])]++
	case "fail":
		r.failed++
		r.failing[k.pkg] = true
		fmt.Fprint(r.out, strings.Join(r.output[k], ""))
	}
}

// endPackage prints the package's own closing line, as go test words it, and
// all else that it printed when it failed for no test's sake.
func (r *report) endPackage(e event) {
	lines := r.output[key{e.Package, ""}]
	if e.Action == "fail" && !r.failing[e.Package] {
		r.broken++
		fmt.Fprint(r.out, strings.Join(lines, ""))
		for k, l := range r.output { // the test that was running, for instance
			if k.pkg == e.Package && k.test != "" {
				fmt.Fprint(r.out, strings.Join(l, ""))
			}
		}
		return
	}
	for _, l := range lines {
		if strings.HasPrefix(l, "ok ") || strings.HasPrefix(l, "FAIL\t") {
			fmt.Fprint(r.out, l)
		}
	}
}

// skipReason is the message of the skip, or the test's name when it gave none.
func skipReason(k key, lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "===") || strings.HasPrefix(l, "---") {
			continue
		}
		// "file_test.go:12: message"
		if _, message, ok := strings.Cut(l, ": "); ok {
			return message
		}
		return l
	}
	return k.test
}

// close prints skips and counts and says whether all is well.
func (r *report) close(strict bool) bool {
	reasons := make([]string, 0, len(r.skips))
	for s := range r.skips {
		reasons = append(reasons, s)
	}
	sort.Strings(reasons)
	if n := len(reasons); n > 6 && !strict {
		reasons = append(reasons[:5], fmt.Sprintf("and %d more reasons", n-5))
	}
	for _, s := range reasons {
		if n := r.skips[s]; n > 0 {
			fmt.Fprintf(r.out, "skipped %d: %s\n", n, s)
		} else {
			fmt.Fprintf(r.out, "skipped: %s\n", s)
		}
	}
	line := fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed, r.skipped)
	if r.broken > 0 {
		line += fmt.Sprintf(", %d packages broken", r.broken)
	}
	if r.label != "" {
		line = r.label + ": " + line
	}
	fmt.Fprintln(r.out, line)
	return r.failed == 0 && r.broken == 0 && r.passed > 0
}
