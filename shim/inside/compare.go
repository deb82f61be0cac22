package inside

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Difference is one thing that two sandboxes show differently.
type Difference struct {
	// What is the part of a View, and Key what of it.
	What string `json:"what"`
	Key  string `json:"key"`
	// Capsule and Other are what is seen; empty: nothing.
	Capsule string `json:"capsule"`
	Other   string `json:"other"`
	// Stricter: capsule gives less than the other, and nothing else differs.
	Stricter bool `json:"stricter,omitempty"`
}

// Compare lists what differs between the sandbox that capsule made of a bundle and
// that of another runtime. covered are the paths that the bundle masks.
func Compare(ours, theirs *View, covered []string) []Difference {
	var all []Difference
	for _, part := range []struct {
		what         string
		ours, theirs map[string]string
		judge        func(key, ours, theirs string) (same, stricter bool)
	}{
		{"ids", ours.IDs, theirs.IDs, nil},
		{"capabilities", ours.Capabilities, theirs.Capabilities, judgeCapability},
		{"limits", ours.Limits, theirs.Limits, nil},
		{"mounts", ours.Mounts, theirs.Mounts, func(key, ours, theirs string) (same, stricter bool) {
			return judgeMount(key, ours, theirs, slices.Contains(covered, key))
		}},
		{"place", ours.Place, theirs.Place, judgePlace},
		{"cgroup", ours.Cgroup, theirs.Cgroup, nil},
	} {
		keys := maps.Clone(part.ours)
		maps.Copy(keys, part.theirs)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			a, b := part.ours[key], part.theirs[key]
			same, stricter := a == b, false
			if !same && part.judge != nil {
				same, stricter = part.judge(key, a, b)
			}
			if !same {
				all = append(all, Difference{What: part.what, Key: key, Capsule: a, Other: b, Stricter: stricter})
			}
		}
	}
	return all
}

// judgeCapability: fewer capabilities, or more of no_new_privs and filter, are stricter.
func judgeCapability(key, ours, theirs string) (same, stricter bool) {
	base := 16
	if key == "NoNewPrivs" || key == "Seccomp" {
		base = 10
	}
	a, errA := strconv.ParseUint(ours, base, 64)
	b, errB := strconv.ParseUint(theirs, base, 64)
	if errA != nil || errB != nil {
		return false, false
	}
	if base == 10 {
		return false, a > b
	}
	return false, a&^b == 0
}

// devices are the default ones, which a runtime makes or binds as it can.
var devices = [...]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console"}

func judgeMount(key, ours, theirs string, covered bool) (same, stricter bool) {
	if slices.Contains(devices[:], key) {
		return true, false
	}
	kernels := strings.HasPrefix(key, "/proc/") || strings.HasPrefix(key, "/sys/") && !strings.HasPrefix(key, "/sys/fs/cgroup")
	if kernels && ours != "" && theirs == "" {
		return false, true // it covers something
	}
	kindA, optionsA, okA := strings.Cut(ours, " ")
	kindB, optionsB, okB := strings.Cut(theirs, " ")
	if !okA || !okB {
		return false, false
	}
	if covered && covering(kindA) && covering(kindB) {
		return true, false // both cover it, with whatever they have
	}
	a, b := strings.Split(optionsA, ","), strings.Split(optionsB, ",")
	if key == "/sys/fs/cgroup" && kindA == "tmpfs" {
		// It holds the directories of v1 and is as large as the runtime likes.
		a, b = lessens(a, true), lessens(b, true)
	}
	if kindA != kindB || !slices.Equal(lessens(a, false), lessens(b, false)) {
		return false, false
	}
	lacks := func(x, y []string) bool {
		return slices.ContainsFunc(lessens(x, true), func(o string) bool { return !slices.Contains(y, o) })
	}
	switch {
	case lacks(b, a):
		return false, false
	case lacks(a, b):
		return false, true
	}
	return true, false
}

func covering(kind string) bool { return kind == "tmpfs" || kind == "devtmpfs" }

// lessens gives the options that take something away, or the others. Which times a
// mount keeps, and whether it is called writable, is neither.
func lessens(options []string, yes bool) []string {
	var list []string
	for _, o := range options {
		switch o {
		case "ro", "nosuid", "nodev", "noexec", "nosymfollow":
			if yes {
				list = append(list, o)
			}
		case "rw", "relatime", "noatime", "strictatime", "nodiratime":
		default:
			if !yes {
				list = append(list, o)
			}
		}
	}
	return list
}

func judgePlace(key, ours, theirs string) (same, stricter bool) {
	switch key {
	case "environment HOME":
		return ours == "", false // runc and crun set it where the bundle does not
	case "entries of /dev":
		// core leads to /proc/kcore; the specification does not name it.
		a, b := strings.Fields(ours), strings.Fields(theirs)
		b = slices.DeleteFunc(b, func(s string) bool { return s == "core" || s == "console" })
		more := slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
		return slices.Equal(a, b), !more
	}
	return false, false
}
