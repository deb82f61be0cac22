package plan

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

func containerFacts() Facts {
	return Facts{BundleDir: "/bundle", Kinds: map[string]Kind{"/srv/data": KindDir, "/proc/keys": KindFile}, Tasks: 2,
		Hierarchies: []Hierarchy{{Name: "memory", Options: "memory", Dir: "/sys/fs/cgroup/memory/x"}, {Name: "systemd", Options: "none,name=systemd", Dir: "/sys/fs/cgroup/systemd/x"}},
		Container:   ContainerFacts{Permitted: 1<<41 - 1, Gate: true}}
}

// TestContainerGolden pins the plans of containers. CAPSULE_GOLDEN=write accepts what changed.
func TestContainerGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/container/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no configurations", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var s specs.Spec
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		f := containerFacts()
		f.Container.Hooks = s.Hooks != nil
		p, err := Container(&s, f)
		if err != nil {
			t.Fatal(file, err)
		}
		var b bytes.Buffer
		if err := p.Explain(&b); err != nil {
			t.Fatal(err)
		}
		golden := strings.TrimSuffix(file, ".json") + ".plan"
		if os.Getenv("CAPSULE_GOLDEN") == "write" {
			if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: the plan differs from %s; CAPSULE_GOLDEN=write accepts it", file, golden)
		}
		checkContainerPlan(t, p)
	}
}

// FuzzContainer gives any configuration to Container: a fault, or a plan that keeps what
// every plan must.
func FuzzContainer(f *testing.F) {
	files, err := filepath.Glob("testdata/container/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no configurations", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s specs.Spec
		if json.Unmarshal(data, &s) != nil {
			return
		}
		facts := containerFacts()
		if s.Linux != nil && s.Linux.Seccomp != nil {
			facts.Filter = make([]byte, 8)
		}
		p, err := Container(&s, facts)
		if err != nil {
			var one *fault.Fault
			var list fault.List
			if !errors.As(err, &one) && !errors.As(err, &list) {
				t.Fatalf("not a fault: %v", err)
			}
			return
		}
		checkContainerPlan(t, p)
		if err := p.Explain(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}

// checkContainerPlan: what is looked up in the root ends there, steps that are passed over
// exist, and the capabilities go after the ids and before execve.
func checkContainerPlan(t *testing.T, p *Plan) {
	t.Helper()
	for _, steps := range [][]Step{p.Setup, p.Payload, p.Command} {
		for i, s := range steps {
			if s.Op == OpInvalid || int(s.Op) >= OpCount || len(s.Args) > 6 || int(s.Result) >= RegCount {
				t.Fatalf("step %v", s)
			}
			if (s.Mode == Prefer || s.Mode == Probe) && i+int(max(1, s.Skip)) >= len(steps) {
				t.Errorf("%v passes over more than there is", s)
			}
			if s.Op == OpOpenat2 && s.Args[0].Kind == ArgReg {
				resolve := binary.LittleEndian.Uint64([]byte(s.Args[2].S)[16:])
				if resolve&(resolveInRoot|resolveBeneath) == 0 || strings.HasPrefix(s.Args[1].S, "/") {
					t.Errorf("%v is looked up with %x", s, resolve)
				}
			}
		}
	}
	last := map[Op]int{}
	for i, s := range p.Payload {
		last[s.Op] = i
	}
	ids := last[OpSetresuid]
	clear(last)
	for i, s := range p.Command {
		last[s.Op] = i
	}
	if ids == 0 || last[OpExecve] != len(p.Command)-1 || last[OpCapset] > last[OpExecve] {
		t.Errorf("the order of the steps: ids %d, %v", ids, last)
	}
}
