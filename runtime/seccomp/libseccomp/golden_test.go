//go:build cgo && !noseccomp

package libseccomp

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
)

var update = flag.Bool("update", false, "write the golden files anew")

var goarches = []string{"amd64", "arm64"}

func compiled(t testing.TB, name, goarch string, optimize int) []bpf.Instruction {
	t.Helper()
	raw := compiledRaw(t, name, goarch, optimize)
	program, err := bpf.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func compiledRaw(t testing.TB, name, goarch string, optimize int) []byte {
	t.Helper()
	raw, err := compile(profileOf(t, name, goarch), goarch, options{optimize: optimize, reporting: true})
	if err != nil {
		t.Fatal(err)
	}
	return bpf.Unmark(raw)
}

// names are the profiles, and what stands behind every filter of a caller.
func names() []string { return append(seccomp.Names(), "floor") }

func profileOf(t testing.TB, name, goarch string) *specs.LinuxSeccomp {
	t.Helper()
	profile, err := seccomp.ReportingFor(name, goarch)
	if name == "floor" {
		profile, err = seccomp.FloorFor(goarch)
	}
	if err != nil {
		t.Fatal(err)
	}
	return profile
}

// TestGolden pins each program with its hash and a listing. When a listing
// changes although no profile did, seccomp.FormatVersion must rise.
func TestGolden(t *testing.T) {
	for _, name := range names() {
		for _, goarch := range goarches {
			raw := compiledRaw(t, name, goarch, binaryTree)
			program, err := bpf.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(raw)
			got := fmt.Sprintf("; %s for %s: %d instructions, sha256 %s\n", name, goarch, len(program), hex.EncodeToString(sum[:])) +
				bpf.Disassemble(program, CallName)
			file := "testdata/" + name + "." + goarch + ".txt"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs (libseccomp %s); read the new listing, then run with -update", file, Version())
			}
		}
	}
}

// TestSizes reports the cost of both ways to order a program: its length and
// the mean length of the path to an answer over the calls 0 to 450.
func TestSizes(t *testing.T) {
	for _, name := range names() {
		for _, goarch := range goarches {
			for optimize, form := range map[int]string{1: "list", binaryTree: "tree"} {
				program := compiled(t, name, goarch, optimize)
				total := 0
				for number := range uint32(450) {
					_, steps := bpf.Run(program, &bpf.Data{Number: number, Arch: auditArch(goarch)})
					total += steps
				}
				t.Logf("%s for %s as a %s: %d instructions, mean path %.0f", name, goarch, form, len(program), float64(total)/450)
			}
		}
	}
}

func auditArch(goarch string) uint32 {
	if goarch == "arm64" {
		return bpf.ArchARM64
	}
	return bpf.ArchAMD64
}
