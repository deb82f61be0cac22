package archtest

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/capsule-run/capsule"

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	CgoFiles     []string
	Deps         []string
	Standard     bool
	Error        *struct{ Err string }
}

// list runs go list at the root of the module. cgo is on, as the rules are
// about it.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json", "-tags", "urfave_cli_no_docs"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOOS=linux")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := d.Decode(&p); err {
		case nil:
			all = append(all, p)
		case io.EOF:
			return all
		default:
			t.Fatal(err)
		}
	}
}

// within says whether path is root or lies below it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

// importRules say what of this module a part of it may import, besides itself.
// Data flows one way: spec, supervisor, shim, runtime.
var importRules = []struct {
	from string
	may  []string
	why  string
}{
	{"spec/fault", nil, "the table of codes stands alone"},
	{"spec", []string{"spec/fault"}, "the contract knows nothing of kernels or processes"},
	{"runtime/breach", nil, "a name and a build tag"},
	{"runtime", []string{"spec/fault"}, "what touches the kernel knows OCI and faults, not requests"},
	{"shim", []string{"spec", "runtime"}, "the shim serves any supervisor"},
	{"supervisor", []string{"spec", "shim/shimapi", "shim/layout", "runtime/wire", "runtime/slack"}, "the supervisor knows a shim by its protocol and its directory only"},
	{"cmd", []string{"spec", "runtime", "shim", "supervisor"}, "programs do not use the tools of the tree"},
}

func TestImportsFlowOneWay(t *testing.T) {
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		// The first rule that matches is the narrowest.
		i := slices.IndexFunc(importRules, func(r struct {
			from string
			may  []string
			why  string
		}) bool {
			return within(rel, r.from)
		})
		if i < 0 {
			continue
		}
		rule := importRules[i]
		for _, imp := range p.Imports {
			target, ours := strings.CutPrefix(imp, module+"/")
			if !ours || within(target, rule.from) {
				continue
			}
			if !slices.ContainsFunc(rule.may, func(m string) bool { return within(target, m) }) {
				t.Errorf("%s imports %s: %s", rel, target, rule.why)
			}
		}
	}
}

// TestCgoStandsInOnePackage keeps C out of every process that is privileged or
// started often. capsule-seccomp is the one program that links it.
func TestCgoStandsInOnePackage(t *testing.T) {
	const home = "runtime/seccomp/libseccomp"
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		if len(p.CgoFiles) > 0 && rel != home {
			t.Errorf("%s uses cgo: %v", rel, p.CgoFiles)
		}
		if slices.Contains(p.Imports, "github.com/seccomp/libseccomp-golang") && rel != home {
			t.Errorf("%s imports libseccomp-golang; only %s may", rel, home)
		}
		if p.Name == "main" && within(rel, "cmd") && rel != "cmd/capsule-seccomp" && slices.Contains(p.Deps, module+"/"+home) {
			t.Errorf("%s links %s; only cmd/capsule-seccomp may", rel, home)
		}
	}
}

// linkRules name what must not be linked into a program: each of these costs
// start-up time on every execution.
var linkRules = []struct {
	program string
	never   []string
}{
	// One for each execution: see runtime/wire.
	{"cmd/capsule-shim", []string{
		"net", "net/http", "crypto/tls", "text/template", "html/template", "regexp",
		"github.com/russross/blackfriday", "github.com/urfave/cli", "github.com/sirupsen/logrus",
		"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/containerd/ttrpc", "github.com/godbus/dbus",
	}},
	{"cmd/capsule-oci", []string{
		"net/http", "crypto/tls", "text/template", "regexp", "github.com/urfave/cli", "google.golang.org/grpc",
		module + "/shim", module + "/supervisor",
	}},
	// One for each pod: see runtime/wire.
	{"cmd/containerd-shim-capsule-v2", []string{
		"net", "net/http", "crypto/tls", "text/template", "regexp", "github.com/urfave/cli", "google.golang.org/grpc", "google.golang.org/protobuf",
		"github.com/containerd/ttrpc", module + "/shim", module + "/supervisor",
	}},
	// urfave/cli itself brings text/template and regexp.
	{"cmd/capsulectl", []string{
		"net/http", "crypto/tls", "html/template", "github.com/russross/blackfriday",
		"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/containerd/ttrpc", "github.com/sirupsen/logrus",
		module + "/runtime/launch", "github.com/godbus/dbus",
	}},
}

func TestProgramsLinkOnlyWhatTheyNeed(t *testing.T) {
	for _, rule := range linkRules {
		for _, p := range list(t, "./"+rule.program) {
			if p.Error != nil {
				t.Errorf("%s: %s", rule.program, p.Error.Err)
			}
			for _, dep := range p.Deps {
				for _, n := range rule.never {
					if within(dep, n) && !strings.HasPrefix(dep, "vendor/") {
						t.Errorf("%s links %s", rule.program, dep)
					}
				}
			}
		}
	}
}

// TestNothingImportsTools keeps the tools of the tree out of the product.
func TestNothingImportsTools(t *testing.T) {
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		if within(rel, "hack") {
			continue
		}
		for _, imp := range p.Imports {
			if within(imp, module+"/hack") {
				t.Errorf("%s imports %s", rel, imp)
			}
		}
	}
}
