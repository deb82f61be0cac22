package host

import (
	"slices"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// table is that of a host with a disk, a network file system, one of FUSE, a
// stick without charged writeback and two overlays, of which one hides its layers.
const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
24 22 0:30 / /mnt/nfs rw - nfs4 server:/x rw,addr=10.0.0.1
25 22 0:31 / /usr/share/remote rw - fuse.sshfs host: rw
26 22 8:17 / /mnt/a\040stick rw - vfat /dev/sdb1 rw
27 22 0:32 /vol /data rw - btrfs /dev/sdc rw,subvol=/vol
28 22 0:33 / /merged rw - overlay overlay rw,lowerdir=/lower:/data/x,upperdir=/mnt/nfs/up,workdir=/w
29 22 0:34 / /hidden rw - overlay overlay rw,lowerdir=/gone,upperdir=/up
30 22 0:35 / /tmp rw - tmpfs tmpfs rw
31 22 8:33 / /mnt/ntfs rw - fuseblk /dev/sdd1 rw
32 22 0:36 / /over rw - tmpfs tmpfs rw
33 22 0:37 / /over rw - nfs server:/y rw
34 22 0:38 /a b /non breaking rw - nfs server:/z rw
a line that is none
`

func TestReach(t *testing.T) {
	exists := func(path string) bool { return path != "/gone" }
	mounts := parseMounts(table)
	if len(mounts) != 13 {
		t.Fatalf("%d mounts: %+v", len(mounts), mounts)
	}
	for _, c := range []struct {
		name  string
		shown []shownPath
		want  IO
	}{
		{"a disk, read", []shownPath{{"/usr/bin", false}}, IO{}},
		{"a disk, written", []shownPath{{"/srv", true}}, IO{Buffered: []string{"/ (ext4)"}}},
		{"what is mounted below counts", []shownPath{{"/usr", false}}, IO{Elsewhere: []string{"/usr/share/remote (fuse.sshfs)"}}},
		{"nfs, written", []shownPath{{"/mnt/nfs/dir", true}}, IO{Elsewhere: []string{"/mnt/nfs (nfs4)"}, WrittenElsewhere: []string{"/mnt/nfs (nfs4)"}}},
		{"a stick", []shownPath{{"/mnt/a stick", true}}, IO{Buffered: []string{"/mnt/a stick (vfat)"}, Uncharged: []string{"/mnt/a stick (vfat)"}}},
		{"btrfs has no device of its own", []shownPath{{"/data", true}}, IO{Buffered: []string{"/data (btrfs)"}}},
		{"layers", []shownPath{{"/merged", false}}, IO{Elsewhere: []string{"/mnt/nfs (nfs4)"}}},
		{"hidden layers", []shownPath{{"/hidden", false}}, IO{Elsewhere: []string{"/hidden (overlay with layers that cannot be seen from here)"}}},
		{"memory", []shownPath{{"/tmp/x", true}, {"/proc", false}}, IO{}},
		{"a disk behind a process", []shownPath{{"/mnt/ntfs", false}}, IO{Elsewhere: []string{"/mnt/ntfs (fuseblk)"}}},
		{"the upper of two", []shownPath{{"/over", false}}, IO{Elsewhere: []string{"/over (nfs)"}}},
		{"a space that is none of the table's", []shownPath{{"/non breaking/x", false}}, IO{Elsewhere: []string{"/non breaking (nfs)"}}},
		{"a name that begins alike", []shownPath{{"/tmpx", true}}, IO{Buffered: []string{"/ (ext4)"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			have := reachOf(mounts, c.shown, exists)
			for _, list := range [][2][]string{{have.Elsewhere, c.want.Elsewhere}, {have.WrittenElsewhere, c.want.WrittenElsewhere},
				{have.Buffered, c.want.Buffered}, {have.Uncharged, c.want.Uncharged}} {
				if !slices.Equal(list[0], list[1]) {
					t.Errorf("\nhave %+v\nwant %+v", have, c.want)
					break
				}
			}
		})
	}
}

func TestGaps(t *testing.T) {
	r := IO{Elsewhere: []string{"far", "farther"}, WrittenElsewhere: []string{"far"}, Buffered: []string{"disk", "stick"}, Uncharged: []string{"stick"}}
	one := int64(1)
	for _, c := range []struct {
		name      string
		bounds    spec.IOLimits
		writeback bool
		want      []string
	}{
		{"nothing", spec.IOLimits{}, false, nil},
		{"reads", spec.IOLimits{ReadBytesPerSecond: &one}, false, []string{"far", "farther"}},
		{"read operations", spec.IOLimits{ReadOpsPerSecond: &one}, true, []string{"far", "farther"}},
		{"writes on v1", spec.IOLimits{WriteBytesPerSecond: &one}, false, []string{"far", "disk", "stick"}},
		{"writes on v2", spec.IOLimits{WriteOpsPerSecond: &one}, true, []string{"far", "stick"}},
	} {
		if have := r.Gaps(&c.bounds, c.writeback); !slices.Equal(have, c.want) {
			t.Errorf("%s: %q, want %q", c.name, have, c.want)
		}
	}
}

func TestAboveMounts(t *testing.T) {
	above := aboveMounts([]mount{{point: "/"}, {point: "/a/b/c"}, {point: "/a/d"}, {point: "/a/b"}})
	for path, want := range map[string]bool{"/": true, "/a": true, "/a/b": true, "/a/b/c": false, "/a/d": false, "/b": false, "/a/": false} {
		if above[path] != want {
			t.Errorf("%s: %v", path, above[path])
		}
	}
}
