package supervisor

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
)

// TestRefuseForOthers: what the supervisor would do with rights that its caller
// lacks, it does for its own user alone.
func TestRefuseForOthers(t *testing.T) {
	for isolation, want := range map[string]fault.Code{
		`{}`:                   "",
		`{"seccomp":"strict"}`: "",
		`{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}}`: fault.NotAuthorised,
		`{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}`: fault.NotAuthorised,
		`{"rootfs":"/srv"}`:                                          fault.PathRefused,
		`{"readonly_paths":["/srv"]}`:                                fault.PathRefused,
		`{"writable_paths":["/srv"]}`:                                fault.PathRefused,
		`{"bind_mounts":[{"source":"/srv","destination":"/mnt/x"}]}`: fault.PathRefused,
	} {
		req, err := new(Supervisor).resolve(0, &api.StartRequest{Request: []byte(`{"command":["/bin/true"],"isolation":` + isolation + `}`)})
		if err != nil {
			t.Fatal(isolation, err)
		}
		if got := codeOf(refuseForOthers(uint32(os.Geteuid())+4242, req, othersOutput)); got != want {
			t.Errorf("%s: another: %q, want %q", isolation, got, want)
		}
		for _, own := range []uint32{0, uint32(os.Geteuid())} {
			if err := refuseForOthers(own, req, othersOutput); err != nil {
				t.Errorf("%s: uid %d: %v", isolation, own, err)
			}
		}
	}
}

// TestListOpensNothingOfOthers: a list reads the records of its caller alone.
func TestListOpensNothingOfOthers(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{MaxConcurrent: 1, MaxQueued: 8})
	s.daemon.queue.Adopt(0, 0) // nothing begins
	const caller, other = 1000, 1001
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	var ids []string
	watched := map[int32]uint32{}
	for _, owner := range []uint32{caller, other} {
		e, err := s.As(owner).Start(t.Context(), &api.StartRequest{Request: []byte(`{"command":["/bin/true"]}`)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
		wd, err := unix.InotifyAddWatch(watch, s.state.Execution(e.ID).Record(), unix.IN_OPEN)
		if err != nil {
			t.Fatal(err)
		}
		watched[int32(wd)] = owner
	}
	page, err := s.As(caller).List(t.Context(), &api.Filter{})
	if err != nil || len(page.Executions) != 1 || page.Executions[0].ID != ids[0] {
		t.Fatalf("%+v, %v", page, err)
	}
	opened := map[uint32]int{}
	buffer := make([]byte, 4<<10)
	n, err := unix.Read(watch, buffer)
	if err != nil {
		t.Fatal("no record was opened:", err)
	}
	for at := 0; at < n; { // inotify(7); files have no names in their own events
		event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[at]))
		opened[watched[event.Wd]]++
		at += unix.SizeofInotifyEvent + int(event.Len)
	}
	if opened[caller] == 0 || opened[other] != 0 {
		t.Errorf("records opened by owner: %v", opened)
	}
}
