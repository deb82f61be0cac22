//go:build !cgo || noseccomp

package libseccomp

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Available: this build has no library.
const Available = false

// Version says that there is no library in this build.
func Version() string { return "none (built without libseccomp)" }

// Compile answers E2003: this build has no libseccomp.
func Compile(_ *specs.LinuxSeccomp, _ string) ([]byte, error) {
	return nil, fault.New(fault.Seccomp, "compile system call filter", "this build has no libseccomp").
		WithHint("Build capsule-seccomp with cgo and without the tag noseccomp; libseccomp-dev provides the library.")
}

// CompileReporting answers E2003, as Compile does.
func CompileReporting(s *specs.LinuxSeccomp, goarch string) ([]byte, error) {
	return Compile(s, goarch)
}

// CompileCaller answers E2003, as Compile does.
func CompileCaller(s *specs.LinuxSeccomp, goarch string) ([]byte, error) { return Compile(s, goarch) }

// CallName knows no names in this build.
func CallName(_, _ uint32) string { return "" }
