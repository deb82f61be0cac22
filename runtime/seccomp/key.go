package seccomp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// FormatVersion stands for everything besides the OCI object that decides the
// bytes of a program: the compiler's options (binary tree, compacted, answer to foreign
// architectures), its reading of OCI, and the layout of a cache file. It rises
// with each change of these, so that no older file is read again.
const FormatVersion = "3"

//go:generate go run ./internal/gen

// HashProfile is the key of a named profile on this architecture: 64
// hexadecimal digits, over what Reporting returns. It is a lookup in generated
// constants. An unknown name is E1001.
func HashProfile(name string) (string, error) {
	key, _, _ := generated(name, runtime.GOARCH)
	if key == "" {
		return "", missingProfile(name)
	}
	return key, nil
}

// OCI is the named profile as OCI linux.seccomp JSON in its canonical form,
// without white space, for this architecture. It costs no encoding, so that a
// writer of config.json can place it as it is. An unknown name is E1001.
func OCI(name string) (string, error) {
	_, object, _ := generated(name, runtime.GOARCH)
	if object == "" {
		return "", missingProfile(name)
	}
	return object, nil
}

// Reporting is ReportingFor as canonical JSON for this architecture: what the
// helper compiles for a named profile. An unknown name is E1001.
func Reporting(name string) (string, error) {
	_, _, object := generated(name, runtime.GOARCH)
	if object == "" {
		return "", missingProfile(name)
	}
	return object, nil
}

// missingProfile says whether the name or the architecture is the reason.
func missingProfile(name string) error {
	if _, err := ociArch(runtime.GOARCH); err != nil {
		return err
	}
	return unknownProfile(name)
}

// HashJSON is the key of an OCI linux.seccomp object in JSON. Objects that
// differ in white space or order only have different keys, which costs a
// second compilation and nothing else.
func HashJSON(object []byte) string { return HashJSONFor(object, runtime.GOARCH) }

// HashJSONFor is HashJSON for a GOARCH.
func HashJSONFor(object []byte, goarch string) string { return hash("object", object, goarch) }

// HashReportingFor is the key of what ReportingFor gives, as JSON. It differs
// from that of a caller's object with the same text, which is compiled otherwise.
func HashReportingFor(object []byte, goarch string) string { return hash("profile", object, goarch) }

func hash(kind string, object []byte, goarch string) string {
	h := sha256.New()
	// The prefix separates versions, kinds and architectures; Write never fails.
	h.Write([]byte("capsule seccomp " + FormatVersion + " " + kind + " " + goarch + "\n"))
	h.Write(object)
	return hex.EncodeToString(h.Sum(nil))
}

// HashSpec is the key of a decoded object, equal to HashJSON of its canonical
// JSON. A nil object is E2003: the absence of a filter has no key.
func HashSpec(s *specs.LinuxSeccomp) (string, error) {
	object, err := encode(s)
	if err != nil {
		return "", err
	}
	return HashJSON(object), nil
}

// encode is the canonical JSON of s.
func encode(s *specs.LinuxSeccomp) ([]byte, error) {
	if s == nil {
		return nil, fault.New(fault.Seccomp, "encode linux.seccomp", "there is no object").WithField("linux.seccomp")
	}
	object, err := json.Marshal(s)
	if err != nil {
		return nil, fault.Wrap(fault.Seccomp, "encode linux.seccomp", err).WithField("linux.seccomp")
	}
	return object, nil
}
