package doctor

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// profileFile is the shipped AppArmor profile.
const profileFile = "../../cmd/capsule-shim/apparmor/capsule-shim"

// TestProfileIsShipped holds the file against the code; CAPSULE_GOLDEN=write writes it.
func TestProfileIsShipped(t *testing.T) {
	want := AppArmorProfile(ProfilePlaces)
	if os.Getenv("CAPSULE_GOLDEN") == "write" {
		if err := os.WriteFile(profileFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(profileFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Errorf("%s is stale: CAPSULE_GOLDEN=write writes it", profileFile)
	}
}

// TestCauses: every cause can be told and mended, and stands once.
func TestCauses(t *testing.T) {
	name := regexp.MustCompile(`^[a-z0-9_]+$`)
	seen := map[string]bool{}
	for _, c := range Causes() {
		if !name.MatchString(c.ID) || seen[c.ID] {
			t.Errorf("bad or repeated id %q", c.ID)
		}
		seen[c.ID] = true
		if c.Setting == "" || c.Host == "" || c.Effect == "" || len(c.Fix) == 0 {
			t.Errorf("%s is not complete: %+v", c.ID, c)
		}
		commands := strings.Join(c.Commands(Place{"/s", "u", "1", "user.max_net_namespaces", "memory"}), "\n")
		if regexp.MustCompile(`\{[A-Z]+\}`).MatchString(commands) {
			t.Errorf("%s: a placeholder is not known: %s", c.ID, commands)
		}
		if l := Lookup(c.ID); l == nil || l.ID != c.ID {
			t.Errorf("%s is not found", c.ID)
		}
	}
	if Lookup("nothing") != nil {
		t.Error("a cause is found that does not exist")
	}
}

func TestWorse(t *testing.T) {
	for _, c := range []struct {
		states []State
		want   State
		exit   int
	}{
		{nil, Works, 0}, {[]State{Works}, Works, 0}, {[]State{Works, Degraded}, Degraded, 1},
		{[]State{Blocked, Degraded}, Blocked, 2}, {[]State{Degraded, Blocked, Works}, Blocked, 2},
	} {
		x := Examination{}
		for _, s := range c.states {
			x.Checks = append(x.Checks, Check{State: s})
		}
		if x.Judge(); x.State != c.want || ExitStatus(x.State) != c.exit {
			t.Errorf("%v: %s, exit %d", c.states, x.State, ExitStatus(x.State))
		}
	}
}
