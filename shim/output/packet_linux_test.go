package output

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// TestPacketMode: a payload that marks its end O_DIRECT gets packets, of which
// a read with a small buffer would lose the rest.
func TestPacketMode(t *testing.T) {
	leakCheck(t)
	c := start(t, 1<<20, spec.OutputTruncate, nil)
	raw, err := c.w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { _, err = unix.FcntlInt(fd, unix.F_SETFL, unix.O_DIRECT) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := pattern(40_000)
	rest := all
	for _, n := range []int{1, 4096, 4095, 10, 20_000, 3, 5} {
		c.write(rest[:n])
		rest = rest[n:]
	}
	c.end()
	n := len(all) - len(rest)
	checkKept(t, c, int64(n), all[:n])
}
