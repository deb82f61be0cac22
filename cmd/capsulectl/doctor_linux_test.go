package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/doctor"
	"github.com/capsule-run/capsule/spec"
)

// kind is a kind of host that the test makes for itself.
type kind struct {
	name string
	// userns and mount put the programs into new namespaces, in which setup
	// runs first, as sh. Nothing of it reaches the host.
	userns, mount bool
	setup         string
	// nobody examines for that user.
	nobody bool
	state  doctor.State
	// causes are those of the checks that do not work; the rest of the report
	// follows from running what it tells about.
	causes map[string]string
}

// hostKind is one kind with the programs and a state directory.
type hostKind struct {
	kind
	bin, state, tmp string
}

func programs(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("CAPSULE_BIN")
	if bin == "" {
		var err error
		if bin, err = filepath.Abs("../../bin"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(bin + "/capsulectl"); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return bin
}

// command runs capsulectl on that host and gives its stdout and exit status.
func (h *hostKind) command(t *testing.T, args ...string) ([]byte, int) {
	t.Helper()
	script := h.setup + "\nexec \"$@\""
	cmd := exec.Command("/bin/sh", append([]string{"-ec", script, "sh", h.bin + "/capsulectl"}, args...)...)
	cmd.Env = append(os.Environ(), "CAPSULE_STATE="+h.state, "BIN="+h.bin, "TMPDIR="+h.tmp, "XDG_CONFIG_HOME="+h.state+"-config")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if h.userns {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if h.mount {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
		// What is mounted and unmounted here stays here.
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	if h.nobody {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		cmd.Dir = "/"
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, exited := err.(*exec.ExitError); !exited {
			t.Fatal(err)
		}
	}
	if errs.Len() > 0 {
		t.Logf("%s: %s", h.name, errs.String())
	}
	return out.Bytes(), cmd.ProcessState.ExitCode()
}

// awaitShims waits for those that have answered and remove their directories: each holds
// the lock of its own.
func awaitShims(t *testing.T, state string) {
	t.Helper()
	dirs, err := filepath.Glob(state + "/executions/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			continue // it is gone
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Error(err)
		}
		f.Close()
	}
}

func newHost(t *testing.T, k kind) *hostKind {
	t.Helper()
	// Short, and open to nobody up to the last directory.
	dir, err := os.MkdirTemp("", "doctor-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		awaitShims(t, dir+"/state")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &hostKind{kind: k, bin: programs(t), state: dir + "/state", tmp: dir + "/tmp"}
	if err := os.Mkdir(h.tmp, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.tmp, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if k.nobody {
		if err := os.Chown(h.state, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// kinds are the hosts that can be made here by this user.
func kinds() []kind {
	unprivileged := map[string]string{}
	all := []kind{
		{name: "as it is"},
		{name: "no user namespaces", userns: true, setup: "echo 0 >/proc/sys/user/max_user_namespaces", state: doctor.Blocked,
			causes: map[string]string{"user_namespace": "namespaces_max"}},
		{name: "no network namespaces", userns: true, setup: "echo 0 >/proc/sys/user/max_net_namespaces", state: doctor.Blocked,
			causes: map[string]string{"network_namespace": "namespaces_max"}},
		{name: "no cgroup namespaces", userns: true, setup: "echo 0 >/proc/sys/user/max_cgroup_namespaces", state: doctor.Blocked,
			causes: map[string]string{"cgroup_namespace": "namespaces_max"}},
		{name: "masked proc", userns: true, mount: true, setup: "mount --bind /dev/null /proc/uptime", state: doctor.Blocked,
			causes: map[string]string{"proc_masking": "proc_masked"}},
		{name: "several things at once", userns: true, mount: true, state: doctor.Blocked,
			setup:  "mount --bind /dev/null /proc/uptime; echo 0 >/proc/sys/user/max_net_namespaces",
			causes: map[string]string{"proc_masking": "proc_masked", "network_namespace": "namespaces_max"}},
		{name: "inside a sandbox", setup: `set -- "$BIN"/capsulectl run --embedded --readonly "$BIN" -t 300s -- "$@"`, state: doctor.Blocked,
			causes: map[string]string{"user_namespace": "container_seccomp", "memory": "cgroup_none"}},
	}
	if os.Getuid() != 0 {
		return all
	}
	none := map[string]string{"memory": "cgroup_none", "pids": "cgroup_none", "cpu_shares": "cgroup_none", "cpu_quota": "cgroup_none", "cpu_time": "cgroup_none"}
	readonly := map[string]string{"memory": "cgroup_readonly", "pids": "cgroup_readonly", "cpu_quota": "cgroup_readonly"}
	all = append(all,
		kind{name: "no control groups", mount: true, setup: "umount -R -l /sys/fs/cgroup", state: doctor.Degraded, causes: none},
		kind{name: "control groups read-only", mount: true, state: doctor.Degraded, causes: readonly,
			setup: `awk '$5 ~ "^/sys/fs/cgroup" {print $5}' /proc/self/mountinfo | while read -r d; do mount -o remount,bind,ro "$d"; done`},
		kind{name: "root without CAP_SYS_ADMIN", state: doctor.Blocked, setup: `set -- setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@"`,
			causes: map[string]string{"rootfs": "container_capabilities"}},
		kind{name: "chroot", mount: true, state: doctor.Blocked, setup: `d=$CAPSULE_STATE-root; mkdir -p "$d"; mount --rbind / "$d"; set -- chroot "$d" "$@"`,
			causes: map[string]string{"user_namespace": "chroot"}},
		kind{name: "another user", nobody: true, causes: unprivileged},
		restricted(),
	)
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		all = append(all, kind{name: "v2 whose controllers are on v1", mount: true, state: doctor.Degraded,
			setup:  "umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup",
			causes: map[string]string{"memory": "cgroup_v1_bound", "pids": "cgroup_v1_bound"}})
		all = append(all, kind{name: "bounded number of control groups", state: doctor.Blocked, causes: map[string]string{"limits": "cgroup_max"},
			setup: `c=/sys/fs/cgroup/unified/capsule.doctor.$$; mkdir "$c"; echo 0 >"$c"/cgroup.max.descendants
				set -- sh -c 'echo 0 >"$0"/cgroup.procs; exec "$@"' "$c" "$@"
				status=0; "$@" || status=$?; 
				until rmdir "$c" 2>/dev/null; do sleep 0.05; done # a shim outlives its caller by a moment
				exit $status`})
	}
	if os.Getenv("CAPSULE_TEST_DISPOSABLE") != "1" {
		return all
	}
	for _, s := range []struct{ file, on, off, cause string }{
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "1", "userns_clone"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0", "apparmor_userns"},
	} {
		if _, err := os.Stat(s.file); err == nil {
			all = append(all, kind{name: filepath.Base(s.file), nobody: true, state: doctor.Blocked,
				causes: map[string]string{"user_namespace": s.cause, "sysctl": s.file + " " + s.on + " " + s.off}})
		}
	}
	return all
}

// TestDoctorIsRight holds every line of the report against executions on the
// same host: what works is enforced, what is degraded is refused when it is
// asked for and told in enforcement when not, what is blocked keeps everything
// from running, with the code of the report.
func TestDoctorIsRight(t *testing.T) {
	for _, k := range kinds() {
		t.Run(strings.ReplaceAll(k.name, " ", "_"), func(t *testing.T) {
			if s := strings.Fields(k.causes["sysctl"]); len(s) == 3 {
				delete(k.causes, "sysctl")
				set(t, s[0], s[1])
				t.Cleanup(func() { set(t, s[0], s[2]) })
			}
			h := newHost(t, k)
			before := cgroupsHere(t)
			out, status := h.command(t, "doctor", "-o", "json")
			var r doctor.Report
			if err := json.Unmarshal(out, &r); err != nil || len(r.Users) != 1 {
				t.Fatalf("status %d, %v: %s", status, err, out)
			}
			x := r.Users[0]
			if want := doctor.ExitStatus(x.State); status != want || k.state != "" && x.State != k.state {
				t.Errorf("%s, exit %d; want %s: %s", x.State, status, k.state, out)
			}
			if x.Left != "" {
				t.Errorf("left behind: %s", x.Left)
			}
			// Those of others, who examine this host at the same time, go by themselves.
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				left := slices.DeleteFunc(cgroupsHere(t), func(path string) bool { return slices.Contains(before, path) })
				if len(left) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Errorf("control groups left: %q", left)
					break
				}
			}
			if left, err := os.ReadDir(h.tmp); err != nil || len(left) > 0 {
				t.Errorf("left in the temporary directory: %v, %v", left, err)
			}
			expectCauses(t, k, x, out)
			h.agrees(t, x)
		})
	}
}

// TestDoctorForAnother: root is told about another user too, also about one who
// may not reach the programs. Only root can be asked.
func TestDoctorForAnother(t *testing.T) {
	if os.Getuid() != 0 {
		h := newHost(t, kind{})
		if _, status := h.command(t, "doctor", "--user", "root"); status != 125 {
			t.Errorf("exit %d for a user who is not root", status)
		}
		return
	}
	h := newHost(t, kind{})
	examined := func() *doctor.Examination {
		t.Helper()
		out, status := h.command(t, "doctor", "--user", "65534", "-o", "json")
		var r doctor.Report
		if err := json.Unmarshal(out, &r); err != nil || len(r.Users) != 2 || r.Users[0].UID != 0 || r.Users[1].UID != 65534 {
			t.Fatalf("exit %d, %v: %s", status, err, out)
		}
		if status != doctor.ExitStatus(doctor.Worse(r.Users[0].State, r.Users[1].State)) {
			t.Errorf("exit %d: %s", status, out)
		}
		return &r.Users[1]
	}
	if x := examined(); !x.Rootless || x.State == doctor.Blocked {
		t.Errorf("nobody: %+v", x)
	}
	hidden := filepath.Dir(h.state) + "/hidden"
	if err := os.Mkdir(hidden, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"capsulectl", "capsule-shim", "capsule-seccomp"} {
		data, err := os.ReadFile(h.bin + "/" + name)
		if err == nil {
			err = os.WriteFile(hidden+"/"+name, data, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h.bin = hidden
	if x := examined(); x.State != doctor.Blocked || len(x.Checks) != 1 || x.Checks[0].Cause != "shim_unreachable" || len(x.Checks[0].Fix) == 0 {
		t.Errorf("nobody, who cannot reach the programs: %+v", x)
	}
}

func set(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

// expectCauses checks that exactly what is wrong is named.
func expectCauses(t *testing.T, k kind, x doctor.Examination, out []byte) {
	t.Helper()
	for name, cause := range k.causes {
		found := false
		for _, c := range x.Checks {
			found = found || c.Name == name && c.Cause == cause && c.By != "" && len(c.Fix) > 0
		}
		if !found {
			t.Errorf("%s is not told to be %s, with its setting and a remedy: %s", name, cause, out)
		}
	}
	for _, c := range x.Checks {
		if c.State != doctor.Works && c.Cause == "" && !strings.HasPrefix(c.Detail, "not reached") {
			t.Errorf("no cause is known for %s: %+v", c.Name, c)
		}
	}
}

// cgroupsHere lists what Prepare may leave where this process is.
func cgroupsHere(t *testing.T) (found []string) {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return filepath.SkipDir
			}
			if d.IsDir() && (d.Name() == "capsule.leaf" || d.Name() == "capsule.pin" || strings.HasPrefix(d.Name(), "capsule-d0c7")) {
				found = append(found, path)
			}
			return nil
		})
		if err != nil {
			t.Log(err)
		}
	}
	return found
}

// agrees runs what the report tells about.
func (h *hostKind) agrees(t *testing.T, x doctor.Examination) {
	t.Helper()
	plain := h.execute(t)
	blocked := map[string]bool{}
	for _, c := range x.Checks {
		if c.State == doctor.Blocked && c.Code != "" {
			blocked[c.Code] = true
		}
	}
	if len(blocked) > 0 {
		if plain.Status != spec.StatusError || plain.Error == nil || !blocked[plain.Error.Code] {
			t.Errorf("doctor says blocked by %v, the execution: %s", blocked, plain.Encode(false))
		}
		return
	}
	if plain.Status != spec.StatusSuccess {
		t.Fatalf("doctor says that executions run: %s", plain.Encode(false))
	}
	for _, c := range x.Checks {
		switch c.Kind {
		case doctor.KindWall:
			whole := c.State == doctor.Works && !strings.HasPrefix(c.Detail, "in part")
			if state, there := plain.Enforcement.Walls[c.Name]; there && (state == spec.Enforced) != whole {
				t.Errorf("%s %s, enforcement says %s", c.Name, c.State, state)
			}
		case doctor.KindLimit:
			h.limitAgrees(t, c, plain)
		}
	}
}

// limitAgrees asks for a limit, and breaks it where doctor says that it works.
func (h *hostKind) limitAgrees(t *testing.T, c doctor.Check, plain *spec.Response) {
	t.Helper()
	b, ok := breaking[c.Name]
	if !ok {
		t.Errorf("nothing here breaks the limit %s", c.Name)
		return
	}
	r := h.execute(t, b.args...)
	switch c.State {
	case doctor.Degraded:
		if r.Error == nil || r.Error.Code != c.Code || r.Termination.Reason != spec.ReasonRefused {
			t.Errorf("%s is degraded with %s; asked for it: %s", c.Name, c.Code, r.Encode(false))
		}
		if plain.Enforcement.Limits[c.Name] == spec.Enforced {
			t.Errorf("%s is degraded, but enforced by default", c.Name)
		}
	case doctor.Works:
		if !b.held(r) {
			t.Errorf("%s works; broken, it gave %s", c.Name, r.Encode(false))
		}
		if r.Enforcement == nil || r.Enforcement.Limits[c.Name] != spec.Enforced {
			t.Errorf("%s works, enforcement says otherwise: %s", c.Name, r.Encode(false))
		}
	default:
		t.Errorf("%s is %s", c.Name, c.State)
	}
}

// execute runs a command, true when none is given, with -o json.
func (h *hostKind) execute(t *testing.T, args ...string) *spec.Response {
	t.Helper()
	if args == nil {
		args = []string{"--", "true"}
	}
	out, status := h.command(t, append([]string{"run", "--embedded", "-o", "json"}, args...)...)
	r, err := spec.DecodeResponse(out)
	if err != nil {
		t.Fatalf("exit %d, %v: %s", status, err, out)
	}
	return r
}

func endedBy(reason spec.Reason) func(*spec.Response) bool {
	return func(r *spec.Response) bool { return r.Termination.Reason == reason }
}

// breaking are executions that go over one limit each, bounded by all others.
var breaking = map[string]struct {
	args []string
	held func(*spec.Response) bool
}{
	"memory": {[]string{"-m", "24M", "-t", "300s", "--", "sh", "-c", "head -c 64M /dev/zero | tail -c 60M >/dev/null; exit 0"}, func(r *spec.Response) bool {
		return r.Metrics.OOMKills != nil && *r.Metrics.OOMKills > 0 || r.Termination.Reason == spec.ReasonOOM
	}},
	"pids": {[]string{"--max-pids", "4", "-t", "60s", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all"}, func(r *spec.Response) bool {
		return r.Stdout == nil || !strings.Contains(*r.Stdout, "all")
	}},
	"cpu_time":   {[]string{"--cpu-time", "200ms", "-t", "300s", "--", "sh", "-c", "while :; do :; done"}, endedBy(spec.ReasonTimeoutCPU)},
	"cpu_quota":  {[]string{"--cpus", "0.1", "-t", "3s", "--grace", "0", "--", "sh", "-c", "while :; do :; done"}, func(r *spec.Response) bool { return r.Metrics.ThrottledMS != nil && *r.Metrics.ThrottledMS > 0 }},
	"cpu_shares": {[]string{"--cpu", "512", "--", "true"}, endedBy(spec.ReasonExited)},
	"output": {[]string{"--max-output", "10", "--", "echo", "0123456789abcdef"}, func(r *spec.Response) bool {
		return r.Output != nil && r.Output.Stdout.Truncated && r.Output.Stdout.BytesKept == 10
	}},
	"io":      {[]string{"--io", "read=100M", "--", "true"}, endedBy(spec.ReasonExited)},
	"timeout": {[]string{"-t", "50", "--", "sleep", "60"}, endedBy(spec.ReasonTimeoutWall)},
	"disk": {[]string{"--disk", "1M", "-t", "60s", "--", "sh", "-c", "head -c 4M /dev/zero >/tmp/x; stat -c %s /tmp/x"}, func(r *spec.Response) bool {
		return r.Stdout == nil || !strings.Contains(*r.Stdout, "4194304")
	}},
}
