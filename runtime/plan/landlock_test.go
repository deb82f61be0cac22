package plan

import (
	"encoding/binary"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// rulesOf compiles a configuration and gives the rights of each rule by path.
func rulesOf(t *testing.T, version int, change func(*specs.Spec)) map[string]uint64 {
	t.Helper()
	s := bare()
	s.Root.Readonly = true
	change(s)
	kinds := map[string]Kind{"/file": KindFile, "/dir": KindDir}
	p, err := Compile(s, Facts{BundleDir: "/bundle", Landlock: version, Kinds: kinds})
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]uint64{}
	for i, step := range p.Setup {
		if step.Op != OpLandlockAddRule {
			continue
		}
		at := Reg(step.Args[2].N)
		if open := p.Setup[i-1]; open.Op != OpOpenat2 || open.Result != at+1 || open.Path != step.Path {
			t.Errorf("the rule for %s has the descriptor of %v", step.Path, open)
		}
		rules[step.Path] = p.Rights[(at-RegRule0)/2]
	}
	entered := slices.ContainsFunc(p.Payload, func(s Step) bool { return s.Op == OpLandlockRestrictSelf })
	if entered != (version >= LandlockLeast) || entered != slices.Contains(p.Walls, "landlock") {
		t.Errorf("version %d: the ruleset is entered: %v; walls %v", version, entered, p.Walls)
	}
	if slices.Contains(p.Partial, "landlock") != (entered && version < LandlockWhole) {
		t.Errorf("version %d: partial %v", version, p.Partial)
	}
	return rules
}

// TestLandlockRules: rights follow the options of the mounts, a rule that adds
// nothing is left out, and what a later mount covers has none.
func TestLandlockRules(t *testing.T) {
	bind := func(dest, source string, options ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: append(options, "rnodev")}
	}
	got := rulesOf(t, LandlockWhole, func(s *specs.Spec) {
		s.Mounts = []specs.Mount{
			{Destination: "/dev", Type: "tmpfs"},
			{Destination: "/dev/mqueue", Type: "mqueue", Options: []string{"noexec", "nodev"}},
			{Destination: "/dev/pts", Type: "devpts", Options: []string{"noexec"}},
			{Destination: "/proc", Type: "proc", Options: []string{"noexec", "nodev"}},
			bind("/ro", "/dir", "rro"), bind("/quiet", "/dir", "rro", "rnoexec"), bind("/rw", "/dir"), bind("/rw/ro", "/dir", "rro"),
			bind("/one", "/file"), bind("/over/a", "/dir"), bind("/over", "/dir", "ro", "noexec"), bind("/twice", "/dir"), bind("/twice", "/dir", "ro", "noexec"),
			{Destination: "/tmp", Type: "tmpfs", Options: []string{"noexec", "nodev"}},
		}
	})
	want := map[string]uint64{
		"/": fsRead, "/ro": fsRead | fsExecute, "/dev": fsRead | fsChange | fsIoctlDev, "/dev/mqueue": fsFull, "/proc": fsRead | fsChange,
		"/rw": fsFull | fsExecute, "/one": fsReadFile | fsChange | fsExecute, "/tmp": fsFull,
	}
	for path, rights := range want {
		if got[path] != rights {
			t.Errorf("%s has %s, want %s", path, rightNames(got[path]), rightNames(rights))
		}
	}
	for path, rights := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s has a rule, for %s", path, rightNames(rights))
		}
		if rights&(fsMakeChar|fsMakeBlock) != 0 {
			t.Errorf("%s may have devices made", path)
		}
	}
}

// TestLandlockVersions: what a kernel does not know is not asked of it.
func TestLandlockVersions(t *testing.T) {
	for version, want := range map[int]struct {
		size    int
		without uint64
	}{2: {8, fsTruncate | fsIoctlDev}, 3: {8, fsIoctlDev}, 4: {16, fsIoctlDev}, 5: {16, 0}, 6: {24, 0}, 9: {24, 0}} {
		s := bare()
		p, err := Compile(s, Facts{BundleDir: "/bundle", Landlock: version})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(p.Setup, func(s Step) bool { return s.Op == OpLandlockCreateRuleset })
		attr := []byte(p.Setup[i].Args[0].S)
		if len(attr) != want.size || p.Setup[i].Args[1].N != int64(want.size) || binary.LittleEndian.Uint64(attr) != fsAll&^want.without {
			t.Errorf("version %d: %x", version, attr)
		}
		for _, rights := range p.Rights {
			if rights&want.without != 0 {
				t.Errorf("version %d: a rule for %s", version, rightNames(rights))
			}
		}
	}
	for _, version := range []int{0, 1} {
		if got := rulesOf(t, version, func(*specs.Spec) {}); len(got) != 0 {
			t.Errorf("version %d: %v", version, got)
		}
	}
}
