package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/spec"
)

// needRuntime skips a test where another OCI runtime is not installed, or cannot
// be used without root.
func needRuntime(t *testing.T, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, false, name+" needs root here")
	}
	if _, err := exec.LookPath(name); err != nil {
		lack(t, true, name+" is not installed: hack/deps.sh peers")
	}
}

// requests are what bundles are made of by `bundle create`. The name of each says
// what it is about.
func requests(c *capsule) map[string]object {
	data := c.directory()
	c.write(data, "file", "from the host\n")
	if err := os.Chmod(data, 0o755); err != nil {
		c.Fatal(err)
	}
	filter := object{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": []object{
		{"names": []string{"mkdirat", "mkdir"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 13}, {"names": allowedCalls, "action": "SCMP_ACT_ALLOW"}}}
	iso := func(kv ...any) object { return object{"isolation": pairs(kv)} }
	res := func(kv ...any) object { return object{"resources": pairs(kv)} }
	return map[string]object{
		"default":         {},
		"exit-7":          {"command": sh("echo out; echo err >&2; exit 7")},
		"environment":     {"environment": object{"A": "b", "PATH": "/usr/bin:/bin"}},
		"user-0":          iso("user", "0:0"),
		"user-65533":      iso("user", "65533:65533"),
		"no-init":         iso("init", false),
		"hostname":        iso("hostname", "other.box"),
		"cwd":             iso("working_directory", "/tmp"),
		"seccomp-network": iso("seccomp", "network"),
		"seccomp-own":     iso("seccomp", filter),
		"readonly-path":   iso("readonly_paths", []string{data}),
		"bind-directory":  iso("bind_mounts", []object{{"source": data, "destination": "/mnt/data"}}),
		"bind-file":       iso("bind_mounts", []object{{"source": data + "/file", "destination": "/opt/file"}}),
		"bind-below-tmp":  iso("bind_mounts", []object{{"source": data, "destination": "/tmp/in/data"}}),
		"memory":          res("memory_bytes", 96<<20),
		"pids":            res("max_pids", 33),
		"cpu-quota":       res("cpu_quota", 0.5),
		"cpu-shares":      res("cpu_shares", 512),
		"disk":            res("disk_bytes", 1<<20),
		"rlimits":         res("rlimits", object{"nofile": 77, "stack": object{"soft": 1 << 20, "hard": 2 << 20}, "core": 0}),
	}
}

func pairs(kv []any) object {
	o := object{}
	for i := 0; i < len(kv); i += 2 {
		o[kv[i].(string)] = kv[i+1]
	}
	return o
}

// allowedCalls is what a shell, id and a Go program need, and more than runc needs of
// the filter that is its own from then on.
var allowedCalls = strings.Fields(`read write close fstat newfstatat stat lstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask
	rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe pipe2 select pselect6 poll ppoll sched_yield sched_getaffinity madvise dup dup2 dup3 nanosleep
	clock_nanosleep getpid getppid gettid socket connect clone clone3 vfork fork execve execveat exit exit_group wait4 waitid kill tgkill uname fcntl getcwd
	chdir fchdir readlink readlinkat umask getrlimit setrlimit prlimit64 getuid geteuid getgid getegid getgroups setsid getpgrp getpgid sigaltstack statfs fstatfs
	arch_prctl prctl futex set_tid_address set_robust_list rseq getrandom clock_gettime clock_getres openat open openat2 getdents64 faccessat faccessat2
	epoll_create1 epoll_ctl epoll_pwait eventfd2 close_range statx restart_syscall sysinfo capget capset seccomp setuid setgid setgroups setresuid setresgid`)

// handWritten are changes to the configuration that `runc spec` writes, over a root
// whose programs are the host's.
func handWritten(data string) map[string]func(config object) {
	at := func(c object, path ...string) object {
		for _, p := range path {
			next, ok := c[p].(map[string]any)
			if !ok {
				next = map[string]any{}
				c[p] = next
			}
			c = next
		}
		return c
	}
	mount := func(c object, m object) { c["mounts"] = append(c["mounts"].([]any), map[string]any(m)) }
	caps := func(c object, names ...string) {
		all := at(c, "process", "capabilities")
		for _, set := range []string{"bounding", "effective", "permitted"} {
			all[set] = names
		}
		delete(all, "ambient")
		delete(all, "inheritable")
	}
	return map[string]func(object){
		"spec":                func(object) {},
		"spec-no-caps":        func(c object) { caps(c) },
		"spec-caps":           func(c object) { caps(c, "CAP_NET_RAW", "CAP_CHOWN", "CAP_SETUID") },
		"spec-no-caps-object": func(c object) { delete(at(c, "process"), "capabilities") },
		"spec-user": func(c object) {
			at(c, "process")["user"] = map[string]any{"uid": 1000, "gid": 100, "additionalGids": []int{5, 7}}
		},
		"spec-user-ambient": func(c object) {
			at(c, "process")["user"] = map[string]any{"uid": 1000, "gid": 1000}
			for _, set := range []string{"bounding", "effective", "permitted", "inheritable", "ambient"} {
				at(c, "process", "capabilities")[set] = []string{"CAP_NET_BIND_SERVICE"}
			}
		},
		"spec-umask":    func(c object) { at(c, "process", "user")["umask"] = 63 },
		"spec-writable": func(c object) { at(c, "root")["readonly"] = false },
		"spec-cwd":      func(c object) { at(c, "process")["cwd"] = "/etc" },
		"spec-hostname": func(c object) { c["hostname"] = "some.where" },
		"spec-rlimits": func(c object) {
			at(c, "process")["rlimits"] = []object{{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}}
		},
		"spec-env": func(c object) {
			p := at(c, "process")
			p["env"] = append(p["env"].([]any), "HOME=/root", "EMPTY=", "EQUALS=a=b")
		},
		"spec-memory": func(c object) {
			at(c, "linux", "resources", "memory")["limit"] = 128 << 20
		},
		"spec-pids": func(c object) { at(c, "linux", "resources", "pids")["limit"] = 40 },
		"spec-cgroup-ns": func(c object) {
			l := at(c, "linux")
			l["namespaces"] = append(l["namespaces"].([]any), object{"type": "cgroup"})
		},
		"spec-no-masks": func(c object) { delete(at(c, "linux"), "maskedPaths"); delete(at(c, "linux"), "readonlyPaths") },
		"spec-mask-root": func(c object) {
			at(c, "linux")["maskedPaths"] = []string{"/secret", "/secrets", "/proc/kcore", "/nowhere"}
		},
		"spec-ro-in-root": func(c object) {
			at(c, "root")["readonly"] = false
			at(c, "linux")["readonlyPaths"] = []string{"/secrets"}
		},
		"spec-tmpfs": func(c object) {
			mount(c, object{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "noexec", "size=1m", "mode=1770"}})
		},
		"spec-bind-ro": func(c object) {
			mount(c, object{"destination": "/made/here", "type": "bind", "source": data, "options": []string{"bind", "ro"}})
		},
		"spec-bind-rw": func(c object) {
			mount(c, object{"destination": "/data", "source": data, "options": []string{"rbind", "nosuid", "nodev", "noexec"}})
		},
		"spec-bind-file": func(c object) {
			mount(c, object{"destination": "/etc/note", "type": "bind", "source": data + "/file", "options": []string{"bind", "ro", "nosuid", "nodev"}})
		},
		"spec-no-new-privileges-off": func(c object) { at(c, "process")["noNewPrivileges"] = false },
	}
}

// specBundle writes a bundle as `runc spec` makes it, changed, over a root whose
// programs are bind mounts of the host's.
func (c *capsule) specBundle(change func(object)) string {
	c.Helper()
	dir := c.directory()
	if err := os.Chmod(dir, 0o711); err != nil {
		c.Fatal(err)
	}
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"", "/etc", "/usr", "/secrets"} {
		if err := os.Mkdir(root+d, 0o755); err != nil {
			c.Fatal(err)
		}
	}
	c.write(root, "secret", "shh")
	if err := os.Chmod(root+"/secret", 0o644); err != nil {
		c.Fatal(err)
	}
	spec := exec.Command("runc", "spec", "--bundle", dir)
	if out, err := spec.CombinedOutput(); err != nil {
		c.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		c.Fatal(err)
	}
	var config object
	if err := json.Unmarshal(data, &config); err != nil {
		c.Fatal(err)
	}
	process := config["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = sh("echo $$; cat /secret; ls /secrets; umask; exit 5")
	mounts := config["mounts"].([]any)
	for _, d := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if target, err := os.Readlink(d); err == nil {
			err = os.Symlink(target, root+d)
			if err != nil {
				c.Fatal(err)
			}
			continue
		}
		if _, err := os.Stat(d); err == nil {
			mounts = append(mounts, map[string]any{"destination": d, "type": "bind", "source": d, "options": []string{"rbind", "ro", "nosuid", "nodev"}})
		}
	}
	config["mounts"] = mounts
	change(config)
	if data, err = json.Marshal(config); err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		c.Fatal(err)
	}
	return dir
}

// created makes a bundle of a request.
func (c *capsule) created(request object) string {
	c.Helper()
	r := object{"command": sh("id; pwd; ls /; cat /etc/passwd; umask")}
	maps.Copy(r, request)
	document, err := json.Marshal(r)
	if err != nil {
		c.Fatal(err)
	}
	dir := c.directory()
	if err := os.Chmod(dir, 0o711); err != nil {
		c.Fatal(err)
	}
	c.write(dir, "request.json", string(document))
	bundle := filepath.Join(dir, "bundle")
	if o := c.finish(c.program("bundle", "create", dir+"/request.json", bundle)); o.code != 0 || o.stderr != "" {
		c.Fatalf("create: exit %d, %s", o.code, o.stderr)
	}
	return bundle
}

// TestBundlesUnderOtherRuntimes runs every bundle under capsule and under another
// runtime, and wants the same exit, output and view from inside.
func TestBundlesUnderOtherRuntimes(t *testing.T) {
	if slow() > 1 {
		t.Skip("slow machines do not compare other runtimes")
	}
	c := begin(t)
	needRuntime(t, "runc")
	data := c.directory()
	c.write(data, "file", "from the host\n")
	for _, path := range []string{data, data + "/file"} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bundles := map[string]string{}
	for name, r := range requests(c) {
		bundles[name] = c.created(r)
	}
	for name, change := range handWritten(data) {
		bundles[name] = c.specBundle(change)
	}
	if len(bundles) < 30 {
		t.Fatalf("only %d bundles", len(bundles))
	}
	for _, runtime := range others(t) {
		t.Run(filepath.Base(runtime), func(t *testing.T) {
			needRuntime(t, runtime)
			for _, name := range slices.Sorted(maps.Keys(bundles)) {
				t.Run(name, func(t *testing.T) { c.same(t, bundles[name], runtime) })
			}
		})
	}
}

// others are the runtimes that bundles are compared under.
func others(t *testing.T) []string {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"runc", "crun", filepath.Join(bin, "capsule-oci")}
}

// same wants a bundle to run under another runtime as it does under capsule.
func (c *capsule) same(t *testing.T, bundle, runtime string) {
	t.Helper()
	if o := c.finish(c.program("bundle", "compare", bundle, "--with", runtime)); o.code != 0 {
		t.Errorf("exit %d\n%s%s", o.code, o.out, o.stderr)
	}
}

// alike is same under all other runtimes, where this user may call them.
func (c *capsule) alike(bundle string) {
	c.Helper()
	for _, runtime := range others(c.T) {
		c.Run("under "+filepath.Base(runtime), func(t *testing.T) {
			needRuntime(t, runtime)
			c.same(t, bundle, runtime)
		})
	}
}

// TestCompareFindsDifferences plants differences between what capsule and the other
// runtime are given.
func TestCompareFindsDifferences(t *testing.T) {
	if slow() > 1 {
		t.Skip("slow machines do not compare other runtimes")
	}
	c := begin(t)
	needRuntime(t, "runc")
	bundle := c.specBundle(func(config object) {
		config["linux"].(map[string]any)["resources"].(map[string]any)["pids"] = object{"limit": 40}
	})
	for what, edit := range map[string]string{
		"command: exit":             `s/exit 5/exit 6/`,
		"command: stdout":           `s/cat .secret;/:;/`,
		"place: hostname":           `s/"hostname":"runc"/"hostname":"else"/`,
		"place: environment TERM":   `s/TERM=xterm/TERM=vt100/`,
		"limits: Max open files":    `s/"soft":1024/"soft":512/`,
		"capabilities: CapBnd":      `s/"bounding":\["CAP_AUDIT_WRITE",/"bounding":[/`,
		"ids: uid":                  `s/"uid":0/"uid":12/`,
		"mounts: /dev":              `s/"size=65536k"/"size=4096k"/`,
		"mounts: /sys":              `s/"destination":"\/sys"/"destination":"\/usr"/`,
		"place: network interfaces": `s/{"type":"network"},//`,
		"cgroup: ":                  `s/"limit":40/"limit":41/`,
		"place: working directory":  `s/"cwd":"\/"/"cwd":"\/etc"/`,
		"place: umask":              `s/"gid":0/"gid":0,"umask":7/`,
		"mounts: /proc/tty":         `s/"\/proc\/sys"/"\/proc\/sys","\/proc\/tty"/`,
	} {
		t.Run(what, func(t *testing.T) {
			dir := c.directory()
			if err := os.Chmod(dir, 0o711); err != nil {
				t.Fatal(err)
			}
			// Called as: --root STATE run --bundle DIR ID, and with other commands.
			c.write(dir, "runc", `#!/bin/sh
if [ "$3" = run ]; then
	mkdir '`+dir+`'/changed."$6"
	tr -d '\n\t' <"$5/config.json" | sed -e 's/": */":/g' | sed -e 's#"path":"rootfs"#"path":"'"$5"'/rootfs"#' -e '`+edit+`' >'`+dir+`'/changed."$6"/config.json
	set -- --root "$2" run --bundle '`+dir+`'/changed."$6" "$6"
fi
exec runc "$@"
`)
			if err := os.Chmod(dir+"/runc", 0o755); err != nil {
				t.Fatal(err)
			}
			o := c.finish(c.program("bundle", "compare", bundle, "--with", dir+"/runc", "-o", "json"))
			var k struct {
				Same        bool
				Differences []struct {
					What, Key string
					Stricter  bool
				}
			}
			if err := json.Unmarshal([]byte(o.out), &k); err != nil {
				t.Fatalf("%v: exit %d, %s", err, o.code, o.stderr)
			}
			found := false
			for _, d := range k.Differences {
				found = found || strings.HasPrefix(d.What+": "+d.Key, what)
			}
			if !found || o.code != 1 {
				t.Errorf("exit %d: %s", o.code, o.out)
			}
		})
	}
}

// TestBundleRun wants of bundle run what run gives: streams, exit status, verdict, limits.
func TestBundleRun(t *testing.T) {
	c := begin(t)
	dir := c.created(object{"command": sh("cat; echo err >&2; exit 4")})
	cmd := c.program("bundle", "run", "-i", dir)
	cmd.Stdin = strings.NewReader("through\n")
	if o := c.finish(cmd); o.code != 4 || o.out != "through\n" || !strings.Contains(o.stderr, "err\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", o.code, o.out, o.stderr)
	}
	o := c.bundleRun(dir)
	o.is(t, exited(4))
	for wall, state := range o.Enforcement.Walls {
		want := spec.Enforced
		if wall == spec.WallLandlock && host.Landlock() < plan.LandlockWhole {
			want = spec.Degraded // an older kernel has less of it
		}
		if state != want {
			t.Errorf("%s is %s", wall, state)
		}
	}
	sleeper := c.created(object{"command": sh("sleep 600")})
	c.bundleRun(sleeper, "-t", "200ms", "--grace", "1m").is(t, want{spec.StatusTimeout, spec.ReasonTimeoutWall, "E3001", -1, 15, 124})
	loud := c.created(object{"command": sh("while :; do echo 0123456789; done")})
	c.bundleRun(loud, "--max-output", "1000", "--output-policy", "kill").is(t, want{spec.StatusKilled, spec.ReasonOutputLimit, "E3006", -1, 9, 137})
	if o := c.finish(c.program("bundle", "run", "-m", "1G", dir)); o.code != 125 || !strings.Contains(o.stderr, "--memory cannot be combined with a bundle") {
		t.Errorf("exit %d, %s", o.code, o.stderr)
	}
}

func (c *capsule) bundleRun(dir string, args ...string) outcome {
	c.Helper()
	o := c.finish(c.program(append(append([]string{"bundle", "run", "-o", "json", "--execution-id", c.newID()}, args...), dir)...))
	if strings.HasPrefix(o.stderr, "capsule: note: kept") {
		o.stderr = ""
	}
	o.Response = c.response(o)
	return o
}

// TestBundleRefusals: what capsule does not support of a bundle is an error that names
// the field, in validate and in run.
func TestBundleRefusals(t *testing.T) {
	c := begin(t)
	original := c.created(object{"command": []string{"true"}})
	data, err := os.ReadFile(original + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct{ pointer, path, value string }{
		{"/process/apparmorProfile", "process.apparmorProfile", `"x"`},
		{"/process/oomScoreAdj", "process.oomScoreAdj", `5`},
		{"/hooks", "hooks", `{"prestart":[{"path":"/bin/true"}]}`},
		{"/linux/sysctl/kernel.core_pattern", "linux.sysctl", `{"kernel.core_pattern":"|/bin/x"}`},
		{"/linux/sysctl/net.ipv4.ip_forward", "linux", `{"sysctl":{"net.ipv4.ip_forward":"1"},"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]}`},
		{"/linux/devices", "linux.devices", `[{"path":"/dev/fuse","type":"c","major":10,"minor":229}]`},
		{"/linux/resources/memory/swappiness", "linux.resources.memory", `{"limit":268435456,"swappiness":5}`},
		{"/linux/resources/cpu/burst", "linux.resources.cpu", `{"burst":5}`},
		{"/linux/resources/devices/0", "linux.resources.devices", `[{"allow":true,"access":"rwm"}]`},
		{"/linux/namespaces/0/path", "linux.namespaces", `[{"type":"network","path":"/proc/1/ns/net"}]`},
		{"/linux/rootfsPropagation", "linux.rootfsPropagation", `"shared"`},
		{"/linux/intelRdt", "linux.intelRdt", `{"closID":"x"}`},
		{"/mounts/0/type", "mounts", `[{"destination":"/x","type":"overlay","source":"overlay","options":["lowerdir=/etc"]}]`},
		{"/mounts/0/options/0", "mounts", `[{"destination":"/x","type":"tmpfs","options":["sync"]}]`},
		{"/mounts/0/source", "mounts", `[{"destination":"/x","type":"bind","source":"/etc/shadow","options":["bind"]}]`},
		{"/process/capabilities/bounding/0", "process.capabilities", `{"bounding":["CAP_NONE"]}`},
		{"/windows", "windows", `{"layerFolders":["x"]}`},
		{"/process/nonsense", "process.nonsense", `1`},
	} {
		t.Run(r.pointer, func(t *testing.T) {
			var config map[string]any
			if err := json.Unmarshal(data, &config); err != nil {
				t.Fatal(err)
			}
			at := config
			parts := strings.Split(r.path, ".")
			for _, p := range parts[:len(parts)-1] {
				at = at[p].(map[string]any)
			}
			at[parts[len(parts)-1]] = json.RawMessage(r.value)
			changed, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			dir := c.directory()
			if err := os.Mkdir(dir+"/rootfs", 0o755); err != nil {
				t.Fatal(err)
			}
			c.write(dir, "config.json", string(changed))
			v := c.finish(c.program("bundle", "validate", "-o", "json", dir))
			var report struct {
				Valid    bool
				Problems []struct{ Code, Pointer string }
			}
			if err := json.Unmarshal([]byte(v.out), &report); err != nil {
				t.Fatal(err, v.stderr)
			}
			named := false
			for _, p := range report.Problems {
				named = named || p.Pointer == r.pointer
				// What capsule would have added is no fault of the bundle's.
				if p.Pointer == "/linux/uidMappings" || p.Pointer == "/process/noNewPrivileges" {
					t.Errorf("%s is told of, which capsule sets itself", p.Pointer)
				}
			}
			if report.Valid || !named || v.code != 1 {
				t.Errorf("validate: exit %d, %s", v.code, v.out)
			}
			o := c.finish(c.program("bundle", "run", dir))
			if o.code != 125 || !strings.Contains(o.stderr, r.pointer) {
				t.Errorf("run: exit %d, %s", o.code, o.stderr)
			}
		})
	}
}

// TestBundleWants: what a bundle wants of the kernel's parameters holds inside, and a place
// for its control group is not taken silently for another.
func TestBundleWants(t *testing.T) {
	c := begin(t)
	dir := c.created(object{"command": sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start")})
	file := dir + "/config.json"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	linux := config["linux"].(map[string]any)
	linux["sysctl"] = object{"net.ipv4.ip_unprivileged_port_start": "77"}
	linux["cgroupsPath"] = "/else/where"
	if data, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	o := c.bundleRun(dir)
	o.is(t, exited(0))
	if o.text() != "77\n" {
		t.Errorf("inside %q, want 77", o.text())
	}
	if all := strings.Join(o.Warnings, "\n"); !strings.Contains(all, "linux.cgroupsPath (/else/where)") {
		t.Errorf("no warning tells of the control group's place: %s", all)
	}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(text)) == "77" {
		t.Error("the host's own parameter was changed")
	}
}

// TestBundleExport takes an ended execution out of the history and runs it again.
func TestBundleExport(t *testing.T) {
	c := begin(t)
	id := c.newID()
	if o := c.finish(c.program("run", "-d", "--embedded", "--execution-id", id, "--", "sh", "-c", "hostname; exit 3")); o.code != 0 {
		t.Fatalf("exit %d, %s", o.code, o.stderr)
	}
	if o := c.finish(c.program("wait", "--embedded", id)); o.code != 3 {
		t.Fatalf("exit %d, %s", o.code, o.stderr)
	}
	t.Cleanup(func() {
		if o := c.finish(c.program("rm", "--embedded", id)); o.code != 0 {
			t.Errorf("exit %d, %s", o.code, o.stderr)
		}
	})
	parent := c.directory()
	if err := os.Chmod(parent, 0o711); err != nil { // for runtimes that come with other ids
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "bundle")
	if o := c.finish(c.program("bundle", "export", id, dir)); o.code != 0 {
		t.Fatalf("exit %d, %s", o.code, o.stderr)
	}
	readme, err := os.ReadFile(dir + "/README.md")
	if err != nil || !strings.Contains(string(readme), id) || !strings.Contains(string(readme), "runc run") {
		t.Errorf("%v\n%s", err, readme)
	}
	o := c.bundleRun(dir)
	o.is(t, exited(3))
	if o.text() != "capsule\n" {
		t.Errorf("stdout %q", o.text())
	}
	if slow() <= 1 {
		c.alike(dir)
	}
	same := c.created(object{"command": sh("hostname; exit 3")})
	if o := c.finish(c.program("bundle", "diff", dir, same)); o.code > 1 || strings.Contains(o.out, "memory") || strings.Contains(o.out, "/process") {
		t.Errorf("exit %d, %s%s", o.code, o.out, o.stderr)
	}
	other := c.created(object{"command": sh("hostname; exit 3"), "resources": object{"memory_bytes": 200 << 20}})
	if o := c.finish(c.program("bundle", "diff", dir, other)); o.code != 1 || !strings.Contains(o.out, "/linux/resources/memory/limit") {
		t.Errorf("exit %d, %s%s", o.code, o.out, o.stderr)
	}
	if o := c.finish(c.program("bundle", "export", id, dir)); o.code != 125 || !strings.Contains(o.stderr, "not empty") {
		t.Errorf("exit %d, %s", o.code, o.stderr)
	}
}

// TestBundlePolicy: a bundle is no way around the policy.
func TestBundlePolicy(t *testing.T) {
	c := begin(t)
	dir := c.created(object{"command": []string{"/usr/bin/env", "true"}})
	file := filepath.Join(c.directory(), "config.toml")
	for rules, code := range map[string]string{
		"[security]\nblocked_commands = [\"env\"]\n":                                     "E5001",
		"[security]\nallowed_commands = [\"/usr/bin/python3\"]\n":                        "E5001",
		"[security]\nallow_custom_seccomp = false\n":                                     "E5004",
		"[limits.max]\nmemory_bytes = 1048576\n":                                         "E1003",
		"[security.paths]\nrootfs = [\"/nowhere\"]\nreadable = [\"/\"]\nwritable = []\n": "E5002",
	} {
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		o := c.finish(c.program("bundle", "run", "-c", file, dir))
		if o.code != 125 || !strings.Contains(o.stderr, code) {
			t.Errorf("%s: exit %d, %s", rules, o.code, o.stderr)
		}
	}
}
