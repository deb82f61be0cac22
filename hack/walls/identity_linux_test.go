package walls

import (
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
)

const (
	bare    = "Inh=0 Prm=0 Eff=0 Bnd=0 Amb=0 NoNewPrivs=1 Seccomp=2"
	minimum = "HOME=/workspace LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
)

// user1000 is what ids gives. Rootless, the caller's other groups cannot be
// dropped: they show as the overflow id and give what the caller has anyway.
func user1000(t *testing.T) string {
	groups, err := os.Getgroups()
	must(t, err)
	shown := []string{}
	if rootless() {
		for _, g := range groups {
			if g == os.Getgid() {
				shown = append(shown, "1000")
			} else {
				shown = append(shown, "65534")
			}
		}
	}
	return "1000 1000 1000 1000 1000 1000 [" + strings.Join(shown, " ") + "]ok"
}

func TestIdentity(t *testing.T) {
	t.Setenv("CAPSULE_WALLS_SECRET", "of the host")
	box{}.expect(t, "behind all walls", map[string]string{
		"ids": user1000(t), "caps": bare, "env": minimum, "session": "true /workspace ok", "hostname": "capsule",
		"limits": "core 0 0 nofile 1024 ok", "tty": "ENXIO", "processes": "", "exes": attackerPath, "init-files": "",
	})
	box{}.with(asUser("0")).expect(t, "as user 0", map[string]string{"caps": bare, "init-files": "", "processes": ""})
	box{}.with(droppingOp(plan.OpSetsid, "")).expect(t, "without a session of its own", map[string]string{"session": "false /workspace ok"})
	if got := (box{}).with(droppingOp(plan.OpPrlimit, "")).attack(t, "limits")["limits"]; got == "core 0 0 nofile 1024 ok" {
		t.Error("taking the limits away goes unnoticed")
	}
	box{}.with(func(r *spec.Request) { r.Isolation.Init = false }).expect(t, "without init", map[string]string{
		"ids": user1000(t), "caps": bare, "env": minimum, "session": "true /workspace ok", "processes": ""})
}

// TestCapabilities: three things empty the sets of user 0, and each two of them
// hold without the third.
func TestCapabilities(t *testing.T) {
	op := func(op plan.Op, option int64) func(*plan.Plan) {
		return dropping(func(s *plan.Step) bool {
			return s.Field == "process.capabilities" && s.Op == op && (option == 0 || s.Args[0].N == option)
		})
	}
	const prCapbsetDrop, prSetSecurebits = 24, 28
	dropSets, dropBounding, dropRootPower := op(plan.OpCapset, 0), op(plan.OpPrctl, prCapbsetDrop), op(plan.OpPrctl, prSetSecurebits)
	root := box{}.with(asUser("0"))
	for why, b := range map[string]box{"no capset": root.with(dropSets), "no securebits": root.with(dropRootPower), "neither": root.with(dropSets, dropRootPower)} {
		if got := b.attack(t, "caps")["caps"]; got != bare {
			t.Errorf("%s: %s", why, got)
		}
	}
	if got := root.with(dropBounding).attack(t, "caps")["caps"]; !strings.HasPrefix(got, "Inh=0 Prm=0 Eff=0 Bnd=1") {
		t.Errorf("no bounding: %s", got)
	}
	if got := root.with(withCapabilities).attack(t, "caps")["caps"]; strings.Contains(got, "Eff=0 ") {
		t.Errorf("with capabilities: %s", got)
	}
}

// TestSetuidFile executes a file that is set-user-id to another id that is
// mapped. nosuid and no_new_privs each stop it, and where neither does, the
// bounding set and securebits leave the new user without capabilities.
func TestSetuidFile(t *testing.T) {
	needRoot(t)
	dir := idmapped(t)
	exe, err := os.Executable()
	must(t, err)
	program, err := os.ReadFile(exe)
	must(t, err)
	must(t, os.WriteFile(dir+"/a", program, 0o755))
	must(t, unix.Chmod(dir+"/a", 0o4755))
	b := box{}.with(func(r *spec.Request) {
		r.Isolation.BindMounts = append(r.Isolation.BindMounts, spec.BindMount{Source: dir, Destination: "/suid", Readonly: true})
	}, func(s *specs.Spec) {
		m := mountAt(s, "/suid")
		owner := []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.Linux.UIDMappings[0].HostID, Size: 1}}
		m.UIDMappings, m.GIDMappings = owner, owner
	})
	suid := func(s *specs.Spec) {
		m := mountAt(s, "/suid")
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "rnosuid" })
	}
	try := func(why string, b box, wantIDs, wantCaps string) {
		t.Helper()
		got := b.attack(t, "exec:/suid/a")
		if !strings.HasPrefix(got["ids"], wantIDs) || !strings.HasPrefix(got["caps"], wantCaps) {
			t.Errorf("%s: %v", why, got)
		}
	}
	try("behind all walls", b, "1000 1000 1000 ", bare)
	try("without nosuid", b.with(suid), "1000 1000 1000 ", bare)
	unfiltered := b.with(noFilter{}, withoutLandlock, withNewPrivileges)
	try("without no_new_privs", unfiltered, "1000 1000 1000 ", "Inh=0 Prm=0 Eff=0 Bnd=0 Amb=0 NoNewPrivs=0")
	try("without either", unfiltered.with(suid), "1000 0 0 ", "Inh=0 Prm=0 Eff=0 Bnd=0 Amb=0 NoNewPrivs=0")
	try("with capabilities too", unfiltered.with(suid, withCapabilities), "1000 0 0 ", "Inh=0 Prm=1")
}

func mountAt(s *specs.Spec, destination string) *specs.Mount {
	for i := range s.Mounts {
		if s.Mounts[i].Destination == destination {
			return &s.Mounts[i]
		}
	}
	panic("no mount at " + destination)
}

// TestDescriptors leaks a descriptor to the launcher without close-on-exec.
func TestDescriptors(t *testing.T) {
	leak, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(leak)
	const cloexec = 4
	hard := dropping(func(s *plan.Step) bool { return s.Op == plan.OpCloseRange && s.Args[2].N != cloexec })
	soft := dropping(func(s *plan.Step) bool { return s.Op == plan.OpCloseRange && s.Args[2].N == cloexec })
	noInit := box{}.with(func(r *spec.Request) { r.Isolation.Init = false })
	for why, b := range map[string]box{"behind all walls": {}, "without init": noInit, "closed at execve only": box{}.with(hard), "closed at once only": box{}.with(soft)} {
		b.expect(t, why, map[string]string{"fds": "0 1 2"})
	}
	if got := (box{}).with(hard, soft).attack(t, "fds")["fds"]; !slices.Contains(strings.Fields(got), itoa(leak)) {
		t.Errorf("without close_range: %q lacks %d", got, leak)
	}
}

// TestWorkingDirectory goes through a link to a descriptor of the launcher's
// (CVE-2024-21626). Descriptors that are closed and links that are not
// followed each stop it; without both the command stands outside its root.
func TestWorkingDirectory(t *testing.T) {
	dir := scratch(t)
	must(t, os.Chmod(dir, 0o777))
	leak, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(leak)
	must(t, os.Symlink("/proc/self/fd/"+itoa(leak), dir+"/link"))
	byName := func(p *plan.Plan) {
		for i := range p.Payload {
			if s := &p.Payload[i]; s.Field == "process.cwd" && s.Op == plan.OpOpenat2 {
				p.Payload[i] = plan.Step{Op: plan.OpChdir, Args: []plan.Arg{{Kind: plan.ArgString, S: s.Path}}, Field: s.Field, Path: s.Path}
			}
		}
		dropping(func(s *plan.Step) bool { return s.Field == "process.cwd" && s.Op != plan.OpChdir })(p)
	}
	inherited := dropping(func(s *plan.Step) bool { return s.Op == plan.OpCloseRange && s.Args[2].N == 0 })
	for _, init := range []bool{true, false} {
		b := box{}.with(func(r *spec.Request) {
			r.Isolation.Init = init
			r.Isolation.BindMounts = append(r.Isolation.BindMounts, spec.BindMount{Source: dir, Destination: "/host", Readonly: true})
			r.Isolation.WorkingDirectory = "/host/link"
		})
		for why, c := range map[string]struct {
			box   box
			errno string
		}{"behind all walls": {b, "ENOENT or ELOOP"}, "descriptors inherited": {b.with(inherited), "ELOOP"}, "by name": {b.with(byName), "ENOENT"}} {
			_, err := c.box.start(t, c.box.compile(t, "session"))
			if err == nil || !strings.Contains(c.errno, detail(err, "errno")) {
				t.Errorf("init %v, %s: %v, want %s", init, why, err, c.errno)
			}
		}
		if got := b.with(byName, inherited).attack(t, "session")["session"]; strings.Contains(got, "/host") || !strings.HasPrefix(got, "true ") {
			t.Errorf("init %v: without both the command runs in %q", init, got)
		}
	}
}
