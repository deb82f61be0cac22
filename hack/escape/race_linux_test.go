package escape

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// swapping exchanges dir/a, a directory, with dir/b, a link, until it is
// stopped, as a payload can that shares the directory. stop says how often.
func swapping(t *testing.T, dir, target string) (stop func() int) {
	t.Helper()
	must(t, os.MkdirAll(dir+"/a/place", 0o777))
	must(t, os.WriteFile(dir+"/a/file", []byte("harmless"), 0o666))
	must(t, os.Symlink(target, dir+"/b"))
	var over atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for !over.Load() {
			if unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE) == nil {
				n++
			}
			// Without a pause nobody's path look-up ends but by chance.
			time.Sleep(20 * time.Microsecond)
		}
		done <- n
	}()
	stop = sync.OnceValue(func() int {
		over.Store(true)
		return <-done
	})
	t.Cleanup(func() { stop() })
	return stop
}

// more tells whether there is to be a round i: so many as are to be, and more where chance
// has had all of them end alike, as on a machine that has no time for who exchanges.
func more(i, short int, outcomes map[string]int) bool {
	all := rounds(short)
	return i < all || i < 10*all && (outcomes["refused"] == 0 || outcomes["inside"] == 0)
}

// TestSwappedMountTarget: the place of a bind lies in a tree that somebody else
// writes, who exchanges its parent for a link to a directory of the host's
// while the sandbox is set up (runc CVE-2021-30465, CVE-2024-45310).
func TestSwappedMountTarget(t *testing.T) {
	secret, dir, source := scratch(t), scratch(t), scratch(t)
	must(t, os.Mkdir(secret+"/place", 0o777))
	must(t, os.WriteFile(secret+"/file", []byte("of the host"), 0o666))
	must(t, os.WriteFile(source+"/mine", nil, 0o644))
	begin(t, secret, source)
	// Absolute, as of the host, and as of the sandbox, where /host is the same.
	stop := swapping(t, dir, secret)
	outcomes := map[string]int{}
	for i := 0; more(i, 60, outcomes); i++ {
		a := run(t, request([]string{"exists:/w/a/place/mine", "exists:" + secret, "read:/w/b/file"}, bind(dir, "/w", false), bind(source, "/w/a/place", true),
			isolation("allow_degraded", []string{spec.WallIDMap})))
		switch {
		case a.exit == 125 && a.Error != nil && (a.Error.Code == "E2004" || a.Error.Code == "E1006"):
			outcomes["refused"]++
		case a.exit == 0 && a.results()["exists:"+secret] == "ENOENT" && !strings.Contains(a.out, "of the host"):
			outcomes["inside"]++
		default:
			t.Fatalf("exit %d, %+v\n%s", a.exit, a.Error, a.out)
		}
	}
	t.Logf("%d exchanges, %v", stop(), outcomes)
	if outcomes["refused"] == 0 || outcomes["inside"] == 0 {
		t.Errorf("there was no race: %v", outcomes)
	}
}

// TestSwappedSource: the source of a bind, its root and its working directory
// are exchanged for a link to what may not be shown.
func TestSwappedSource(t *testing.T) {
	secret, err := os.ReadFile("/etc/passwd")
	must(t, err)
	first := strings.SplitN(string(secret), "\n", 2)[0]
	if _, err := os.Lstat("/etc/x"); err == nil {
		t.Fatal("/etc/x is there before anybody made it")
	}
	// Where a wall is missing it is made, and is not to be what the next run finds.
	t.Cleanup(func() {
		if err := os.Remove("/etc/x"); err == nil {
			t.Error("/etc/x was made")
		}
	})
	dir := scratch(t)
	begin(t)
	stop := swapping(t, dir, "/etc")
	outcomes := map[string]int{}
	degraded := isolation("allow_degraded", []string{spec.WallIDMap})
	for i := 0; more(i, 90, outcomes); i++ {
		var a answer
		switch i % 3 {
		case 0:
			a = run(t, request([]string{"read:/shown/passwd", "create:/shown/x"}, bind(dir+"/a", "/shown", false), degraded))
		case 1:
			a = run(t, request([]string{"read:/passwd", "create:/x"}, isolation("rootfs", dir+"/a"), degraded))
		case 2:
			a = run(t, request([]string{"read:passwd", "session"}, bind(dir, "/w", false), isolation("working_directory", "/w/a"), degraded))
		}
		switch {
		case strings.Contains(a.out, first):
			t.Fatalf("the host's file is shown:\n%s", a.out)
		case a.exit == 125 || a.exit == 127:
			outcomes["refused"]++
		case a.exit == 0 || a.exit == 126: // the root has no loader for the attacker
			outcomes["inside"]++
		default:
			t.Fatalf("exit %d, %+v\n%s", a.exit, a.Error, a.out)
		}
	}
	t.Logf("%d exchanges, %v", stop(), outcomes)
	if outcomes["refused"] == 0 || outcomes["inside"] == 0 {
		t.Errorf("there was no race: %v", outcomes)
	}
}
