package supervisor

import (
	"os"
	"testing"

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
