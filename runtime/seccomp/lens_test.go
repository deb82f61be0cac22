package seccomp

import (
	"slices"
	"testing"
)

// TestLens: what decides an answer is told, and nothing else.
func TestLens(t *testing.T) {
	l, err := NewLens()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		call      string
		args      [6]uint64
		decisive  string
		refusedBy []string
	}{
		{"read", [6]uint64{3, 0x7fff0000, 100}, "", nil},
		{"openat", [6]uint64{0, 0, 0, 0}, "2&0x400040=0x0", nil},
		{"openat", [6]uint64{0, 0, 0x80000, 0xdeadbeef}, "2&0x400040=0x0", nil},
		{"openat", [6]uint64{0, 0, 0x241, 0o644}, "2&0x400040=0x40,3&0xc00=0x0", nil},
		{"openat", [6]uint64{0, 0, 0x241, 0o4644}, "2&0x400040=0x40,3&0xc00=0x800", []string{"default", "strict", "network"}},
		{"ioctl", [6]uint64{1, 0x5401}, "1&0xffffffff=0x5401", nil},
		{"ioctl", [6]uint64{1, 0xdeadbeef_00005412}, "1&0xffffffff=0x5412", []string{"default", "strict", "network"}},
		{"socket", [6]uint64{1, 2, 0}, "0&0xffffffff=0x1", []string{"strict"}},
		{"socket", [6]uint64{2, 1, 6}, "0&0xffffffff=0x2,2&0xffffffff=0x6", []string{"strict"}},
		{"socket", [6]uint64{16, 3, 0}, "0&0xffffffff=0x10,2&0xffffffff=0x0", []string{"default", "strict"}},
		{"clone", [6]uint64{0x3d0f00}, "0&0x7e020000=0x0", []string{"strict"}},
		{"mount", [6]uint64{}, "", []string{"default", "strict", "network"}},
		{"nonsense", [6]uint64{1}, "", []string{"default", "strict", "network"}},
	} {
		decisive, refusedBy := l.See(c.call, &c.args)
		if decisive != c.decisive || !slices.Equal(refusedBy, c.refusedBy) {
			t.Errorf("%s %x: %q, refused by %q; want %q, %q", c.call, c.args, decisive, refusedBy, c.decisive, c.refusedBy)
		}
		if decisive != "" {
			if _, err := parseConditions(decisive); err != nil {
				t.Error(err)
			}
		}
	}
}
