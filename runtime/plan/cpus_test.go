package plan

import (
	"bytes"
	"testing"
)

func TestCPUs(t *testing.T) {
	for list, want := range map[string][]byte{"0": {1}, "0-1,9": {3, 2}, "7, 8-9": {0x80, 3}} {
		if mask, ok := CPUs(list); !ok || !bytes.Equal(mask, want) {
			t.Errorf("%q is %v", list, mask)
		}
	}
	for _, list := range []string{"", "x", "3-", "1-99999", "2-1", "-1"} {
		if mask, ok := CPUs(list); ok {
			t.Errorf("%q is %v", list, mask)
		}
	}
}
