package fault_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestTable holds that the table is in order, complete and without repeats.
func TestTable(t *testing.T) {
	form := regexp.MustCompile(`^E[1-6]\d{3}$`)
	names := map[string]bool{}
	codes := make([]string, 0, len(fault.Table()))
	for _, info := range fault.Table() {
		codes = append(codes, string(info.Code))
		switch {
		case !form.MatchString(string(info.Code)):
			t.Errorf("%s is not a code", info.Code)
		case info.Name == "" || names[info.Name]:
			t.Errorf("%s: the name %q is empty or used twice", info.Code, info.Name)
		case !strings.HasSuffix(info.Meaning, ".") || !strings.HasSuffix(info.Hint, "."):
			t.Errorf("%s: meaning and hint are not sentences", info.Code)
		case info.Code.Info() != info:
			t.Errorf("%s: Info finds %+v", info.Code, info.Code.Info())
		}
		names[info.Name] = true
	}
	if !slices.IsSorted(codes) || len(slices.Compact(codes)) != len(fault.Table()) {
		t.Error("the codes are not in order")
	}
}

// TestContract pins the numbers, which other programs depend on.
func TestContract(t *testing.T) {
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`Code = "(E\d{4})"`).FindAllStringSubmatch(string(source), -1)
	if len(declared) != len(fault.Table()) {
		t.Errorf("%d constants, %d rows", len(declared), len(fault.Table()))
	}
	for i, info := range fault.Table() {
		if string(info.Code) != declared[i][1] {
			t.Errorf("row %d is %s, the constant %s", i, info.Code, declared[i][1])
		}
	}
	var have []string
	for family, last := range map[string]int{"E1": 7, "E2": 9, "E3": 8, "E4": 6, "E5": 4, "E6": 6} {
		for n := 1; n <= last; n++ {
			have = append(have, fmt.Sprintf("%s%03d", family, n))
		}
	}
	for _, code := range have {
		if fault.Code(code).Info().Meaning == "" {
			t.Errorf("the contract has %s, the table has not", code)
		}
	}
}

func TestUnknownCode(t *testing.T) {
	if info := fault.Code("E9999").Info(); info.Code != "E9999" || info.Name != "unknown" || info.Hint != "" {
		t.Errorf("%+v", info)
	}
}

func TestMessage(t *testing.T) {
	for _, c := range []struct {
		f    *fault.Fault
		want string
	}{
		{fault.New(fault.Filesystem, "mount /proc", "busy"), "E2004 mount /proc: busy"},
		{fault.New(fault.Filesystem, "mount", "busy").WithPath("/proc"), "E2004 mount: /proc: busy"},
		{fault.New(fault.Filesystem, "mount /proc", "busy").WithPath("/proc"), "E2004 mount /proc: busy"},
		{fault.Wrap(fault.SystemCall, "clone3", syscall.ENOSYS), "E6003 clone3: function not implemented"},
		{&fault.Fault{Code: fault.Cgroup, Errno: syscall.EACCES}, "E2002 permission denied"},
		{&fault.Fault{Code: fault.OutOfMemory}, "E4002 out of memory"},
		{&fault.Fault{Code: fault.OutOfMemory, Path: "/x"}, "E4002 /x"},
	} {
		if have := c.f.Error(); have != c.want {
			t.Errorf("have %q, want %q", have, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	f := fault.Wrap(fault.IO, "read", &os.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT})
	if f.Errno != syscall.ENOENT || !errors.Is(f, os.ErrNotExist) {
		t.Errorf("the errno is not lifted: %+v", f)
	}
	if f := fault.Wrap(fault.IO, "read", io.EOF); f.Errno != 0 || !errors.Is(f, io.EOF) {
		t.Errorf("%+v", f)
	}
}

func TestIsComparesCodes(t *testing.T) {
	err := fmt.Errorf("run: %w", fault.New(fault.Timeout, "", "late").WithField("a"))
	if !errors.Is(err, &fault.Fault{Code: fault.Timeout}) || errors.Is(err, &fault.Fault{Code: fault.OutOfMemory}) || errors.Is(err, io.EOF) {
		t.Error("errors.Is does not compare by code alone")
	}
}

func TestRemedy(t *testing.T) {
	if r := fault.New(fault.Timeout, "", "").Remedy(); r != fault.Timeout.Info().Hint {
		t.Error(r)
	}
	if r := fault.New(fault.Timeout, "", "").WithHint("wait").Remedy(); r != "wait" {
		t.Error(r)
	}
}

// TestRemedyOfErrno: the code's hint would send the reader elsewhere.
func TestRemedyOfErrno(t *testing.T) {
	for _, c := range []struct {
		code  fault.Code
		errno syscall.Errno
		want  string
	}{
		{fault.OutputCapture, syscall.EMFILE, "ulimit -n"},
		{fault.Cgroup, syscall.EMFILE, "ulimit -n"},
		{fault.IO, syscall.ENOSPC, "Free space"},
		{fault.Namespace, syscall.ENOSPC, "capsulectl doctor"}, // user.max_user_namespaces
		{fault.Namespace, syscall.EAGAIN, "ulimit -u"},
		{fault.Filesystem, syscall.EAGAIN, "what the kernel answered"},
		{fault.InvalidPath, syscall.ENOENT, "spelling"},
		{fault.InvalidPath, syscall.EACCES, "access"},
		{fault.InvalidPath, syscall.ELOOP, "what the kernel answered"},
		{fault.InvalidPath, 0, "absolute path"},
	} {
		if r := fault.Wrap(c.code, "", c.errno).Remedy(); !strings.Contains(r, c.want) {
			t.Errorf("%s %v: %q", c.code, c.errno, r)
		}
		if r := fault.Wrap(c.code, "", c.errno).WithHint("wait").Remedy(); r != "wait" {
			t.Errorf("%s %v: %q", c.code, c.errno, r)
		}
	}
}

func TestList(t *testing.T) {
	var empty fault.List
	if err := empty.Err(); err != nil {
		t.Errorf("an empty list is the error %v", err)
	}
	list := fault.List{fault.New(fault.OutOfRange, "", "low").WithField("/a"), fault.New(fault.MissingField, "decode", "gone")}
	err := fmt.Errorf("refused: %w", list.Err())
	if want := "refused: E1003 /a: low\nE1002 decode: gone"; err.Error() != want {
		t.Errorf("%q", err)
	}
	if !errors.Is(err, &fault.Fault{Code: fault.MissingField}) {
		t.Error("errors.Is does not see the second fault")
	}
	if f := fault.From(err, fault.IO); f != list[0] {
		t.Errorf("From gives %v", f)
	}
}

func TestFrom(t *testing.T) {
	if f := fault.From(nil, fault.IO); f != nil {
		t.Errorf("nil becomes %v", f)
	}
	if f := fault.From(syscall.EPERM, fault.Cgroup); f.Code != fault.Cgroup || f.Errno != syscall.EPERM {
		t.Errorf("%+v", f)
	}
}
