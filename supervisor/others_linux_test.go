package supervisor

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
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

// TestListOpensNothingOfOthers: a list reads the records of its caller alone, those of
// its page, and of them what the daemon does not remember. Info reads none.
func TestListOpensNothingOfOthers(t *testing.T) {
	s := testQueue(t)
	const caller, other = 1000, 1001
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	watched := map[int32]string{}
	start := func(what string, owner uint32, request string) {
		t.Helper()
		wd, err := unix.InotifyAddWatch(watch, s.state.Execution(begin(t, s, owner, request)).Record(), unix.IN_OPEN)
		if err != nil {
			t.Fatal(err)
		}
		watched[int32(wd)] = what
	}
	start("long, on the next page", caller, longRequest)
	start("long", caller, longRequest)
	start("short", caller, doNothing)
	start("another's", other, longRequest)
	opened := func() map[string]int {
		opened := map[string]int{}
		buffer := make([]byte, 4<<10)
		n, err := unix.Read(watch, buffer)
		if err != nil && err != unix.EAGAIN { // nothing was opened
			t.Fatal(err)
		}
		for at := 0; at < n; { // inotify(7); files have no names in their own events
			event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[at]))
			opened[watched[event.Wd]]++
			at += unix.SizeofInotifyEvent + int(event.Len)
		}
		return opened
	}
	for _, uid := range []uint32{0, caller, other} {
		if _, err := s.As(uid).Info(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if have := opened(); len(have) != 0 {
		t.Errorf("info opens %v", have)
	}
	page, err := s.As(caller).List(t.Context(), &api.Filter{PageSize: 2})
	if err != nil || len(page.Executions) != 2 || page.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	// That there is a next page it knows by the first one there.
	if have := opened(); have["long"] == 0 || have["short"]+have["another's"] != 0 {
		t.Errorf("records opened: %v", have)
	}
}
