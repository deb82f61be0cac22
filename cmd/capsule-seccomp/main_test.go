package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/runtime/seccomp/libseccomp"
	"github.com/capsule-run/capsule/spec/fault"
)

// TestMain lets this binary serve as the helper of a cache, which runs it with
// the argument compile and without an environment.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "compile") {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// compiler says whether this build can compile.
func compiler() bool { return !strings.HasPrefix(libseccomp.Version(), "none") }

func TestVerbs(t *testing.T) {
	object, err := seccomp.OCI("strict")
	if err != nil {
		t.Fatal(err)
	}
	shown, err := run([]string{"show", "strict"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, shown); err != nil || compact.String() != object {
		t.Errorf("show prints %s, %v", shown, err)
	}
	if out, err := run([]string{"profiles"}, nil); err != nil || string(out) != "default\nstrict\nnetwork\n" {
		t.Errorf("profiles: %q %v", out, err)
	}
	if out, err := run([]string{"version"}, nil); err != nil || !strings.HasPrefix(string(out), "format "+seccomp.FormatVersion+", libseccomp ") {
		t.Errorf("version: %q %v", out, err)
	}
	raw, err := run([]string{"compile"}, strings.NewReader(object))
	if !compiler() {
		if !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
			t.Errorf("compile without libseccomp: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	listing, err := run([]string{"disasm"}, bytes.NewReader(raw))
	if err != nil || bytes.Count(listing, []byte("\n")) != len(raw)/bpf.InstructionSize {
		t.Errorf("disasm: %s %v", listing, err)
	}
	other, err := run([]string{"compile", "arm64"}, strings.NewReader(object))
	if err != nil || runtime.GOARCH != "arm64" && bytes.Equal(other, raw) {
		t.Errorf("compile arm64: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		args  []string
		stdin string
		want  fault.Code
	}{
		{nil, "", fault.InvalidValue},
		{[]string{"load"}, "", fault.InvalidValue},
		{[]string{"show"}, "", fault.InvalidValue},
		{[]string{"show", "unconfined"}, "", fault.InvalidValue},
		{[]string{"profiles", "x"}, "", fault.InvalidValue},
		{[]string{"compile"}, "{", fault.Seccomp},
		{[]string{"compile", "a", "b"}, "{}", fault.InvalidValue},
		{[]string{"disasm"}, "", fault.Seccomp},
		{[]string{"disasm"}, strings.Repeat("x", 40000), fault.Seccomp},
	} {
		out, err := run(tc.args, strings.NewReader(tc.stdin))
		if f := fault.From(err, fault.IO); out != nil || f == nil || f.Code != tc.want {
			t.Errorf("%v: %q %v, want %s", tc.args, out, err, tc.want)
		}
	}
	line := oneLine(fault.New(fault.Seccomp, "a", "b\nc").WithField("linux.seccomp"))
	if line != "E2003 linux.seccomp: a: b c" {
		t.Errorf("line %q", line)
	}
}

// TestCacheWithHelper goes the whole way: cache, helper, libseccomp, file.
func TestCacheWithHelper(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c := &seccomp.Cache{Dir: filepath.Join(t.TempDir(), "filters"), Helper: self}
	if !compiler() {
		_, err := c.Named(ctx, "default")
		f := fault.From(err, fault.IO)
		if f.Code != fault.Seccomp || !strings.Contains(f.Message(), "no libseccomp") || !strings.Contains(f.Hint, "cgo") {
			t.Errorf("without libseccomp: %v, hint %q", err, f.Hint)
		}
		return
	}
	profile, err := seccomp.Profile("default")
	if err != nil {
		t.Fatal(err)
	}
	caller, err := libseccomp.CompileCaller(profile, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	exact, err := libseccomp.Compile(profile, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(exact, caller) || bpf.Notifies(exact) {
		t.Error("an orchestrator's filter is compiled as a caller's is")
	}
	if profile, err = seccomp.ReportingFor("default", runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	named, err := libseccomp.CompileReporting(profile, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if profile, err = seccomp.Profile("default"); err != nil {
		t.Fatal(err)
	}
	object, err := json.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for _, tc := range []struct {
		want []byte
		get  func() ([]byte, error)
	}{
		{named, func() ([]byte, error) { return c.Named(ctx, "default") }},
		{caller, func() ([]byte, error) { return c.Object(ctx, object) }},
		{exact, func() ([]byte, error) { return c.Exact(ctx, profile) }},
	} {
		group.Go(func() {
			for range 2 {
				if got, err := tc.get(); err != nil || !bytes.Equal(got, tc.want) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
	group.Wait()
	if files, _ := os.ReadDir(c.Dir); len(files) != 3 {
		t.Errorf("three programs have the files %v", files)
	}
	_, err = c.Object(ctx, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["nope"],"action":"SCMP_ACT_KILL"}]}`))
	if f := fault.From(err, fault.IO); f.Code != fault.Seccomp || f.Field != "linux.seccomp.syscalls[0].names[0]" {
		t.Errorf("unknown call: %v, field %q", err, f.Field)
	}
}
