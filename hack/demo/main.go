// Demo runs about a dozen commands through capsulectl, well-behaved ones and
// others, and prints a table of what capsule made of them. Everything in the
// table is read from the verdicts that capsulectl returned.
//
//	go run ./hack/demo [-bin bin]
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

func main() {
	bin := flag.String("bin", "bin", "directory of capsulectl")
	flag.Parse()
	ok, err := run(os.Stdout, *bin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run prints the table and says whether every verdict was the expected one.
func run(w *os.File, bin string) (ok bool, err error) {
	capsulectl, err := filepath.Abs(filepath.Join(bin, "capsulectl"))
	if err != nil {
		return false, err
	}
	// A place on the host that a sandbox must not reach, and a supervisor
	// state of our own, so that nothing of the user's is touched.
	work, err := os.MkdirTemp("", "capsule-demo-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	state, secret := filepath.Join(work, "state"), filepath.Join(work, "host-file")
	if err := os.WriteFile(secret, []byte("the host's own\n"), 0o666); err != nil {
		return false, err
	}

	t := newTable(w)
	t.head()
	ok = true
	var first []byte
	for i, s := range shows(secret) {
		response, raw, err := execute(capsulectl, state, s.request)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.title, err)
		}
		surprise := s.check(response)
		if surprise != "" {
			ok = false
		}
		t.row(s, response, surprise)
		if i == 0 {
			first = raw
		}
	}
	t.foot(shows(secret)[0].request, first, ok)
	return ok, nil
}

// execute sends one request and decodes the answer. An exit status other than
// zero is part of the verdict; an answer that is no document is an error.
func execute(capsulectl, state, request string) (spec.Response, []byte, error) {
	var r spec.Response
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(capsulectl, "run", "--embedded", "--json")
	cmd.Env = append(os.Environ(), "CAPSULE_STATE="+state)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(request), &stdout, &stderr
	runErr := cmd.Run()
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) {
		return r, nil, runErr
	}
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		said, _ := io.ReadAll(&stderr)
		return r, nil, fmt.Errorf("no verdict (%v): %s", err, strings.TrimSpace(string(said)))
	}
	return r, stdout.Bytes(), nil
}
