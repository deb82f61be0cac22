package seccomp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var aFewCalls = []Seen{
	{Call: "read", Count: 7, Processes: []string{"sh"}},
	{Call: "openat", Count: 3, Arguments: []string{"2&0x400040=0x0", "2&0x400040=0x40,3&0xc00=0x0"}, Processes: []string{"sh", "cat"}},
	{Call: "socket", Count: 1, Arguments: []string{"0&0xffffffff=0x1"}},
	{Call: "execve"},
}

func generated1(t *testing.T, seen []Seen) *specs.LinuxSeccomp {
	t.Helper()
	profile, rules, err := Generate(Merge(nil, "one", seen), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if !strings.Contains(r.Reason, " in one") {
			t.Errorf("%s has the reason %q", r.Call, r.Reason)
		}
	}
	return profile
}

// TestGenerate: what was seen is allowed and nothing else is, whatever the
// arguments that were not.
func TestGenerate(t *testing.T) {
	profile := generated1(t, aFewCalls)
	for _, c := range []struct{ call, arguments, want string }{
		{"read", "", JudgedAllowed}, {"execve", "", JudgedAllowed}, {"write", "", JudgedRefused}, {"clone3", "", JudgedRefused}, {"mount", "", JudgedRefused},
		{"openat", "2&0x400040=0x0", JudgedAllowed}, {"openat", "2&0x400040=0x40,3&0xc00=0x0", JudgedAllowed},
		{"openat", "2&0x400040=0x40,3&0xc00=0x800", JudgedRefused}, {"openat", "2&0x400040=0x400000,3&0xc00=0x0", JudgedRefused}, {"openat", "", JudgedUnknown},
		{"socket", "0&0xffffffff=0x1", JudgedAllowed}, {"socket", "0&0xffffffff=0x2,2&0xffffffff=0x0", JudgedRefused},
	} {
		if got := Judge(profile, c.call, c.arguments); got != c.want {
			t.Errorf("%s %q is %s, want %s", c.call, c.arguments, got, c.want)
		}
	}
	if i := slices.IndexFunc(profile.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, "clone3") }); i < 0 || *profile.Syscalls[i].ErrnoRet != 38 {
		t.Error("clone3 is not answered as on a kernel without it")
	}
	if _, _, err := Generate(nil, "amd64"); err == nil {
		t.Error("nothing was seen, and yet there is a profile")
	}
	for _, bad := range []Seen{{Call: "syscall 999"}, {Call: "i386 call 4"}, {Call: ""}, {Call: "read", Arguments: []string{"9&0x1=0x0"}}, {Call: "read", Arguments: []string{"1&0x1=0x2"}}, {Call: "read", Arguments: []string{"x"}}} {
		if _, _, err := Generate(Merge(nil, "one", []Seen{bad}), "amd64"); err == nil {
			t.Errorf("%+v makes a profile", bad)
		}
	}
}

// TestMerge: records add up, in any order.
func TestMerge(t *testing.T) {
	one := []Seen{{Call: "read", Count: 1, Processes: []string{"b"}}, {Call: "clone", Count: 2, Arguments: []string{"0&0x7e020000=0x0"}}}
	other := []Seen{{Call: "clone", Count: 3, Arguments: []string{"0&0x7e020000=0x0"}, Partial: true}, {Call: "read", Count: 4, Processes: []string{"a", "b"}}}
	x, y := Merge(Merge(nil, "1", one), "2", other), Merge(Merge(nil, "2", other), "1", one)
	a, _ := json.Marshal(x)
	b, _ := json.Marshal(y)
	if string(a) != string(b) || len(x) != 2 || x[0].Count != 5 || !x[0].Partial || x[1].Count != 5 || !slices.Equal(x[1].Processes, []string{"a", "b"}) || !slices.Equal(x[1].Executions, []string{"1", "2"}) {
		t.Errorf("%s\n%s", a, b)
	}
}

// TestJudgeShipped: the shipped profiles in OCI form, judged by what the lens
// gives, answer as the lens says.
func TestJudgeShipped(t *testing.T) {
	l, err := NewLens()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		profile, err := ProfileFor(name, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		for call, parts := range l.watched {
			all := [][6]uint64{{}}
			for _, p := range parts {
				for _, args := range all {
					for _, v := range append(slices.Clone(p.values), p.other()) {
						args[p.index] = args[p.index]&^p.mask | v
						all = append(all, args)
					}
				}
			}
			for i := range all {
				decisive, refusedBy := l.See(call, &all[i])
				want := JudgedAllowed
				if slices.Contains(refusedBy, name) {
					want = JudgedRefused
				}
				if got := Judge(profile, call, decisive); got != want {
					t.Errorf("%s: %s %q is %s, want %s", name, call, decisive, got, want)
				}
			}
		}
	}
}
