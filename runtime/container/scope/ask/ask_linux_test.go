package ask

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/spec/fault"
)

// told is a manager that says what it is told: the errors are its answers.
type told struct{}

func (told) Start(_ context.Context, u scope.Unit, pid int, limits []scope.Property) (string, error) {
	if u.Name == "taken.scope" {
		return "", fault.New(fault.Cgroup, "start scope", "it exists").WithField("linux.cgroupsPath").WithPath(u.Name).WithHint("Take another.")
	}
	want := []scope.Property{{Name: "MemoryMax", Value: ^uint64(0)}, {Name: "AllowedCPUs", Value: []byte{3, 0}, Since: 244}}
	if u.Slice != "a.slice" || pid != 42 || !reflect.DeepEqual(limits, want) {
		return "", fmt.Errorf("%v %d %v", u, pid, limits)
	}
	return "/a.slice/" + u.Name, nil
}

func (told) Set(_ context.Context, _ scope.Unit, limits []scope.Property) error {
	if len(limits) != 1 || limits[0].Value != uint64(7) {
		return fmt.Errorf("%v", limits)
	}
	return nil
}

func (told) Stop(_ context.Context, u scope.Unit) error { return errors.New("stop " + u.Name) }

// TestMain is capsule-oci too, when it is called as that.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Verb {
		if err := Serve(context.Background(), os.Stdin, os.Stdout, told{}); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestManager: values, types and errors come through to the other program and back.
func TestManager(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := Manager{Program: self}
	limits := []scope.Property{{Name: "MemoryMax", Value: ^uint64(0)}, {Name: "AllowedCPUs", Value: []byte{3, 0}, Since: 244}}
	if at, err := m.Start(t.Context(), scope.Unit{Name: "b.scope", Slice: "a.slice"}, 42, limits); err != nil || at != "/a.slice/b.scope" {
		t.Errorf("start: %q, %v", at, err)
	}
	_, err = m.Start(t.Context(), scope.Unit{Name: "taken.scope"}, 42, nil)
	var f *fault.Fault
	if !errors.As(err, &f) || f.Code != fault.Cgroup || f.Field != "linux.cgroupsPath" || f.Hint != "Take another." || !strings.Contains(f.Message(), "it exists") {
		t.Errorf("refused: %#v", err)
	}
	if err := m.Set(t.Context(), scope.Unit{}, []scope.Property{{Name: "TasksMax", Value: uint64(7)}}); err != nil {
		t.Errorf("set: %v", err)
	}
	if err := m.Stop(t.Context(), scope.Unit{Name: "b.scope"}); err == nil || !strings.Contains(err.Error(), "stop b.scope") {
		t.Errorf("stop: %v", err)
	}
	if err := m.Set(t.Context(), scope.Unit{}, []scope.Property{{Name: "Odd", Value: "text"}}); err == nil {
		t.Error("a value of another type was taken")
	}
}

// TestManagerIsNotFooled: what does not say that it has done it has not.
func TestManagerIsNotFooled(t *testing.T) {
	for name, script := range map[string]string{
		"fails in silence": "exit 1", "fails with an answer": "echo '{}'; exit 1", "no path": "echo '{}'", "a relative one": `echo '{"path":"a"}'`, "no JSON": "echo done",
	} {
		program := filepath.Join(t.TempDir(), "capsule-oci")
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if at, err := (Manager{Program: program}).Start(t.Context(), scope.Unit{}, 1, nil); err == nil {
			t.Errorf("%s: %q", name, at)
		}
	}
	_, err := Manager{Program: filepath.Join(t.TempDir(), "none")}.Start(t.Context(), scope.Unit{}, 1, nil)
	var f *fault.Fault
	if !errors.As(err, &f) || f.Field != "options.SystemdCgroup" || f.Hint == "" {
		t.Errorf("without a program: %v", err)
	}
}
