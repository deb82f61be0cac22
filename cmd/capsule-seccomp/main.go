// Command capsule-seccomp compiles system call filters. It is the one program
// of capsule that links libseccomp and therefore cgo; capsule-shim executes it
// when a compiled filter is not in its cache.
//
//	capsule-seccomp compile [ARCH]  OCI linux.seccomp JSON of a caller on stdin, the program for seccomp(2) on stdout
//	capsule-seccomp compile-profile a shipped profile in its reporting form on stdin, its program on stdout
//	capsule-seccomp compile-exact   OCI linux.seccomp JSON of an orchestrator on stdin, the program that answers just that on stdout
//	capsule-seccomp profiles        names of the shipped profiles
//	capsule-seccomp show NAME       a shipped profile as OCI linux.seccomp JSON
//	capsule-seccomp disasm          a program on stdin, a listing on stdout
//	capsule-seccomp version         versions of the format and of libseccomp
//
// Every error is one line on stderr that begins with its code; the exit status
// is then 1, or 3 in a build without libseccomp.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/runtime/seccomp/libseccomp"
	"github.com/capsule-run/capsule/spec/fault"
)

const usage = "compile [ARCH] | profiles | show NAME | disasm | version"

func main() {
	out, err := run(os.Args[1:], os.Stdin)
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, oneLine(fault.From(err, fault.IO)))
		if !libseccomp.Available {
			os.Exit(seccomp.ExitNoLibrary)
		}
		os.Exit(1)
	}
}

// oneLine is the fault with its code first and its field, on a single line.
func oneLine(f *fault.Fault) string {
	text := string(f.Code) + " "
	if f.Field != "" {
		text += f.Field + ": "
	}
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(text + f.Message())
}

// run carries one verb out and returns what belongs on stdout.
func run(args []string, stdin io.Reader) ([]byte, error) {
	verb, rest := "", []string(nil)
	if len(args) > 0 {
		verb, rest = args[0], args[1:]
	}
	switch {
	case verb == "compile" && len(rest) == 0:
		return compile(stdin, runtime.GOARCH, libseccomp.CompileCaller)
	case verb == "compile" && len(rest) == 1:
		return compile(stdin, rest[0], libseccomp.CompileCaller)
	case verb == "compile-profile" && len(rest) == 0:
		return compile(stdin, runtime.GOARCH, libseccomp.CompileReporting)
	case verb == "compile-exact" && len(rest) == 0:
		return compile(stdin, runtime.GOARCH, libseccomp.Compile)
	case verb == "profiles" && len(rest) == 0:
		return []byte(strings.Join(seccomp.Names(), "\n") + "\n"), nil
	case verb == "show" && len(rest) == 1:
		return show(rest[0])
	case verb == "disasm" && len(rest) == 0:
		return disassemble(stdin)
	case verb == "version" && len(rest) == 0:
		return fmt.Appendf(nil, "format %s, libseccomp %s\n", seccomp.FormatVersion, libseccomp.Version()), nil
	}
	return nil, fault.New(fault.InvalidValue, "read arguments", "usage: capsule-seccomp "+usage)
}

func compile(stdin io.Reader, goarch string, compile func(*specs.LinuxSeccomp, string) ([]byte, error)) ([]byte, error) {
	object, err := readAll(stdin, libseccomp.MaxObjectSize)
	if err != nil {
		return nil, err
	}
	s, err := libseccomp.Decode(object)
	if err != nil {
		return nil, err
	}
	return compile(s, goarch)
}

// readAll reads at most limit bytes and one more, by which the reader of the
// data recognises that there were too many.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fault.Wrap(fault.IO, "read stdin", err)
	}
	return data, nil
}

func show(name string) ([]byte, error) {
	object, err := seccomp.OCI(name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(object), "", "  "); err != nil {
		return nil, fault.Wrap(fault.Seccomp, "indent profile "+name, err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func disassemble(stdin io.Reader) ([]byte, error) {
	raw, err := readAll(stdin, bpf.MaxInstructions*bpf.InstructionSize)
	if err != nil {
		return nil, err
	}
	program, err := bpf.Parse(raw)
	if err != nil {
		return nil, err
	}
	return []byte(bpf.Disassemble(program, libseccomp.CallName)), nil
}
