package calls

import "testing"

func TestName(t *testing.T) {
	for _, tc := range []struct {
		arch, number uint32
		want         string
	}{
		{archI386, 20, "i386 call 20"}, {archARM, 20, "arm call 20"}, {0xc000003e, x32Bit | 39, "x32 call 39"},
		{0xc000003e, 9999, "syscall 9999"}, {0xc000003e, 0xffffffff, "syscall 4294967295"}, {0xc00000b7, 466, "syscall 466"},
	} {
		if got := Name(tc.arch, tc.number); got != tc.want {
			t.Errorf("%#x %d: %q, want %q", tc.arch, tc.number, got, tc.want)
		}
	}
}

func TestKnown(t *testing.T) {
	for name, want := range map[string]bool{"ptrace": true, "read": true, "ptrac": false, "": false, "-": false, "read write": false, "syscall 5": false} {
		if got := Known(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
