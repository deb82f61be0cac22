package plan

import (
	"bytes"
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

func containerFacts() Facts {
	return Facts{BundleDir: "/bundle", Kinds: map[string]Kind{"/srv/data": KindDir, "/proc/keys": KindFile}, Tasks: 2,
		Hierarchies: []Hierarchy{{Name: "memory", Options: "memory", Dir: "/sys/fs/cgroup/memory/x"}, {Name: "systemd", Options: "none,name=systemd", Dir: "/sys/fs/cgroup/systemd/x"}},
		Container:   ContainerFacts{Permitted: 1<<41 - 1}}
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
		pinned(t, p, strings.TrimSuffix(file, ".json")+".plan")
		checkContainerPlan(t, p)
		p, err = Exec(&s, f, joinsOfAll())
		if err != nil {
			t.Fatal(file, err)
		}
		pinned(t, p, strings.TrimSuffix(file, ".json")+".exec.plan")
		checkExecPlan(t, p)
	}
}

// pinned compares a plan with the file that has it.
func pinned(t *testing.T, p *Plan, golden string) {
	t.Helper()
	var b bytes.Buffer
	if err := p.Explain(&b); err != nil {
		t.Fatal(err)
	}
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
		t.Errorf("the plan differs from %s; CAPSULE_GOLDEN=write accepts it", golden)
	}
}

// joinsOfAll are namespaces of every kind.
func joinsOfAll() (all []Join) {
	for _, kind := range []uint64{CloneNewUser, CloneNewIPC, CloneNewUTS, CloneNewNet, CloneNewPID, CloneNewCgroup, CloneNewTime, CloneNewNS} {
		all = append(all, Join{Kind: kind, Path: "/proc/7/ns/" + cloneNames(kind), Field: "linux.namespaces"})
	}
	return all
}

// checkExecPlan: what is seen in the container has what the command has. It takes up
// nothing and gives up nothing but what no right is needed for.
func checkExecPlan(t *testing.T, p *Plan) {
	t.Helper()
	checkSteps(t, p)
	visible := map[Op]bool{OpRead: true, OpWrite: true, OpSetsid: true, OpIoctl: true, OpPrlimit: true, OpSeccomp: true, OpExecve: true}
	if len(p.Before) == 0 || len(p.Setup) > 0 || len(p.Init) > 0 {
		t.Fatal("the steps are in other places")
	}
	for _, s := range append(slices.Clone(p.Payload), p.Command...) {
		if !visible[s.Op] || s.Mode != Must && s.Op != OpExecve {
			t.Errorf("%v is done in the container", s)
		}
	}
	var last Step
	for _, s := range p.Before {
		if s.Op == OpCapset || s.Op == OpPrctl {
			last = s
		}
	}
	if last.Args[0].N != prSetDumpable || last.Args[1].N != 0 {
		t.Errorf("the last but %v", last)
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
		if p, err = Exec(&s, facts, joinsOfAll()); err != nil {
			t.Fatalf("a process like the container's own: %v", err)
		}
		checkExecPlan(t, p)
	})
}

// checkContainerPlan: what is looked up in the root ends there, steps that are passed over
// exist, and the capabilities go after the ids and before execve.
func checkContainerPlan(t *testing.T, p *Plan) {
	t.Helper()
	checkSteps(t, p)
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

func checkSteps(t *testing.T, p *Plan) {
	t.Helper()
	for _, steps := range [][]Step{p.Before, p.Setup, p.Payload, p.Command} {
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
}
