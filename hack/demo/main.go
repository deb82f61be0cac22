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
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
	const own = "the host's own\n"
	if err := os.WriteFile(secret, []byte(own), 0o666); err != nil {
		return false, err
	}

	t := newTable(w)
	t.head()
	ok = true
	var ids []string
	all := shows(secret)
	for _, s := range all {
		response, _, err := execute(capsulectl, state, s.request)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.title, err)
		}
		surprise := s.check(response)
		if surprise != "" {
			ok = false
		}
		t.row(s, response, surprise)
		ids = append(ids, response.ExecutionID)
	}
	if now, err := os.ReadFile(secret); err != nil || string(now) != own {
		return false, fmt.Errorf("a sandbox changed %s: %q, %v", secret, now, err)
	}
	if err := leftOver(state, ids); err != nil {
		return false, err
	}
	t.summary(ok)
	// Again, now that the filter is compiled: the first run of all paid for it.
	_, document, err := execute(capsulectl, state, all[0].request)
	if err != nil {
		return false, err
	}
	t.exchange(all[0].request, document)
	return ok, nil
}

// leftOver is an error when a directory or a cgroup of an execution is still
// there. The shim removes its directory once the answer is delivered, which
// capsulectl does not wait for.
func leftOver(state string, ids []string) error {
	executions := filepath.Join(state, "executions")
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		entries, err := os.ReadDir(executions)
		if len(entries) == 0 {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			break
		}
		if time.Now().After(deadline) {
			name := entries[0].Name()
			return fmt.Errorf("execution %d (%s) left its directory behind", slices.Index(ids, name)+1, name)
		}
	}
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			// Other groups come and go while we look.
			return nil
		}
		if id, ok := strings.CutPrefix(d.Name(), "capsule-"); ok && slices.Contains(ids, id) {
			return fmt.Errorf("execution %s left %s behind", id, path)
		}
		return nil
	})
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
