package plan

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// FuzzCompile gives any configuration to Compile. It is refused with a fault,
// or the plan keeps what every plan must: bounds, mount targets that follow no
// link, the namespaces that capsule never goes without, and the order in which
// privileges go.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no configurations", err)
	}
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint8(i))
	}
	f.Add([]byte(`{"process":{"args":["a"],"cwd":"/","noNewPrivileges":true},"root":{"path":"/"},"linux":{}}`), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		var s specs.Spec
		if json.Unmarshal(data, &s) != nil {
			return
		}
		p, err := Compile(&s, fuzzFacts(&s, how))
		if err != nil {
			var one *fault.Fault
			var list fault.List
			if !errors.As(err, &one) && !errors.As(err, &list) {
				t.Fatalf("not a fault: %v", err)
			}
			return
		}
		checkPlan(t, p)
		if err := p.Explain(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}

// fuzzFacts are a host of which how decides what there is.
func fuzzFacts(s *specs.Spec, how uint8) Facts {
	f := Facts{BundleDir: "/bundle", Kinds: map[string]Kind{}, Rootless: how&1 != 0, NoInit: how&2 != 0, Tasks: int(how>>2) & 3, Landlock: int(how>>4) % 9}
	if s.Linux != nil {
		if s.Linux.Seccomp != nil {
			f.Filter = make([]byte, 8)
		}
		for i, path := range append(append([]string(nil), s.Linux.MaskedPaths...), s.Linux.ReadonlyPaths...) {
			f.Kinds[path] = Kind((i + int(how)) % 3)
		}
	}
	for i, m := range s.Mounts {
		f.Kinds[m.Source] = Kind((i + int(how>>4)) % 3)
	}
	return f
}

func checkPlan(t *testing.T, p *Plan) {
	t.Helper()
	if n := len(p.Setup) + len(p.Payload) + len(p.Command) + len(p.Init); n > MaxSteps {
		t.Errorf("%d steps", n)
	}
	if len(p.Rights) > MaxRights {
		t.Errorf("%d different rights", len(p.Rights))
	}
	const never = CloneNewUser | CloneNewNS | CloneNewPID | CloneNewIPC | CloneNewUTS
	if p.Clone&never != never {
		t.Errorf("namespaces %x", p.Clone)
	}
	for _, steps := range [][]Step{p.Setup, p.Payload, p.Command, p.Init} {
		for i := range steps {
			checkStep(t, &steps[i])
		}
	}
	order := map[Op]int{}
	for i, s := range slices.Concat(p.Payload, p.Command) {
		if _, seen := order[s.Op]; !seen || s.Op == OpPrctl {
			order[s.Op] = i
		}
	}
	// Ids go before capabilities, which changing them needs, and the last thing
	// before the filter is nothing that a filter may forbid.
	if order[OpCapset] < order[OpSetresuid] || order[OpExecve] < order[OpCapset] || order[OpExecve] < order[OpPrctl] || order[OpLandlockRestrictSelf] != 0 && order[OpLandlockRestrictSelf] < order[OpCapset] {
		t.Errorf("the order of the payload's steps: %v", order)
	}
}

func checkStep(t *testing.T, s *Step) {
	t.Helper()
	if s.Op == OpInvalid || int(s.Op) >= OpCount || len(s.Args) > 6 || int(s.Result) >= RegCount {
		t.Fatalf("step %v", s)
	}
	for _, a := range s.Args {
		if a.Kind == ArgReg && (a.N <= 0 || a.N >= int64(RegCount)) {
			t.Errorf("%v names register %d", s, a.N)
		}
	}
	if s.Result == RegTarget {
		if resolve := binary.LittleEndian.Uint64([]byte(s.Args[2].S)[16:]); resolve != resolveInRoot|resolveNoSymlinks|resolveNoMagiclinks {
			t.Errorf("a mount target is resolved with %x", resolve)
		}
		if strings.HasPrefix(s.Args[1].S, "/") {
			t.Errorf("a mount target is absolute: %s", s.Args[1].S)
		}
	}
}
