package walls

import (
	"net"
	"os"
	"testing"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/spec"
)

// withoutLandlock takes out the step that enters the ruleset, where the kernel
// has any.
func withoutLandlock(p *plan.Plan) { droppingOp(plan.OpLandlockRestrictSelf, "")(p) }

// scoped tells whether Landlock of this kernel stands before signals and
// abstract sockets.
func scoped() bool { return host.Landlock() >= plan.LandlockWhole }

// TestLandlock takes away the wall before it each time, so that Landlock alone
// refuses, and then Landlock too.
func TestLandlock(t *testing.T) {
	if host.Landlock() < plan.LandlockLeast {
		t.Skip("needs a kernel with Landlock")
	}
	alone := func(why string, b box, want, without map[string]string) {
		t.Helper()
		b.expect(t, why, want)
		b.with(withoutLandlock).expect(t, why+", without Landlock", without)
	}
	// A nested user namespace gives capabilities, and mounts are theirs to make.
	alone("without the filter", box{}.with(noFilter{}), map[string]string{"nested": "EPERM"}, map[string]string{"nested": "ok"})
	writable := func(path string) box {
		return box{}.with(asUser("0"), dropping(func(s *plan.Step) bool { return s.Op == plan.OpMountSetattr && s.Path == path }))
	}
	for _, dir := range []string{"/", "/dev"} {
		made := "create:" + dir + "/x"
		alone(dir+" is mounted writable", writable(dir), map[string]string{made: "EACCES"}, map[string]string{made: "ok"})
	}
	// Where one may write, nothing is in the way.
	box{}.expect(t, "what is allowed", map[string]string{"create:/tmp/x": "ok", "create:/dev/shm/x": "ok", "create:/run/x": "ok", "create:/workspace/x": "ok",
		"create:/var/tmp/x": "ok", "mqueue:!walls-landlock": "ok"})
	if !scoped() {
		return
	}
	name := "capsule-walls-landlock-" + itoa(os.Getpid())
	abstract, err := net.Listen("unix", "@"+name)
	must(t, err)
	defer abstract.Close()
	shared := box{}.with(func(r *spec.Request) { r.Isolation.Network = true })
	alone("with the host's network", shared, map[string]string{"abstract:" + name: "EPERM"}, map[string]string{"abstract:" + name: "ok"})
	alone("with the ids of process 1", box{}.with(asUser("0"), sameIDs), map[string]string{"signal:1": "EPERM"}, map[string]string{"signal:1": "ok"})
}
