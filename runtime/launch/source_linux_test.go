package launch

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
)

// TestIDMaps: sources with the same maps share one namespace, and only they do.
func TestIDMaps(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	maps := func(inside uint32) []plan.IDMap { return []plan.IDMap{{Inside: inside, Outside: 0x70000000, Size: 1}} }
	var known idMaps
	defer known.close()
	var inodes []uint64
	for _, pair := range [][2]uint32{{1, 2}, {1, 2}, {2, 1}, {1, 1}} {
		ns, err := known.of(maps(pair[0]), maps(pair[1]))
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		inodes = append(inodes, st.Ino)
	}
	if inodes[0] != inodes[1] || inodes[0] == inodes[2] || inodes[0] == inodes[3] || inodes[2] == inodes[3] {
		t.Errorf("namespaces %d of the maps 1/2, 1/2, 2/1 and 1/1", inodes)
	}
	for i := range uint32(2 * maxIDMaps) {
		if _, err := known.of(maps(i), maps(i)); err != nil || len(known) > maxIDMaps {
			t.Fatalf("%d held, %v", len(known), err)
		}
	}
}
