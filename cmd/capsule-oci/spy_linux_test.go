package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// spyOn makes the test binary, as a container's command, look at every other process
// that it sees, for a way to the file of the host that is so named.
const spyOn = "CAPSULE_OCI_SPY"

// spy looks until it is killed and writes what it finds to /out/found, once it looks
// /out/up. It has CAP_SYS_PTRACE in the user namespace of the host.
func spy(secret string) {
	own := spied("self")
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	found, err := os.OpenFile("/out/found", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(err)
	must(os.WriteFile("/out/up", []byte("up"), 0o644))
	self := strconv.Itoa(os.Getpid())
	seen := map[string]bool{}
	for {
		entries, err := os.ReadDir("/proc")
		must(err)
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err != nil || e.Name() == self {
				continue
			}
			if !seen[e.Name()] {
				seen[e.Name()] = true
				// How many there were tells whether anything was looked at.
				must(os.WriteFile("/out/.seen", []byte(strconv.Itoa(len(seen))), 0o644))
				must(os.Rename("/out/.seen", "/out/seen"))
			}
			for _, way := range ways(e.Name(), secret, own) {
				_, err := fmt.Fprintln(found, way)
				must(err)
			}
		}
	}
}

// spied is what a process may have that another of the container may not.
func spied(pid string) map[string]string {
	status := map[string]string{}
	text, _ := os.ReadFile("/proc/" + pid + "/status") // it may be gone
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.HasPrefix(name, "Cap") {
			status[name] = strings.TrimSpace(value)
		}
	}
	return status
}

// ways are those to the host that a process offers now.
func ways(pid, secret string, own map[string]string) (list []string) {
	dir := "/proc/" + pid + "/"
	up := strings.Repeat("/..", 30)
	try := func(p string) {
		if text, err := os.ReadFile(p); err == nil && string(text) == "secret" {
			list = append(list, p)
		}
	}
	try(dir + "root" + secret)
	try(dir + "cwd" + up + secret)
	fds, _ := os.ReadDir(dir + "fd") // it may be gone
	for _, fd := range fds {
		try(dir + "fd/" + fd.Name() + up + secret)
	}
	if exe, err := os.Readlink(dir + "exe"); err == nil && strings.HasSuffix(exe, ".test") && exe != "/attack.test" {
		list = append(list, dir+"exe is "+exe)
	}
	for name, value := range spied(pid) {
		if have := own[name]; value != have && name != "CapInh" && value > have {
			list = append(list, dir+"status has "+name+" "+value)
		}
	}
	return list
}

// TestSpiedExec: a process that joins a container is seen there as what it becomes and
// never as what it was: with no way to the host and no right that the container lacks.
// CAP_SYS_PTRACE passes over that it cannot be dumped.
func TestSpiedExec(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*specs.Spec)
	}{
		{"no new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
		{"new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
	} {
		t.Run(c.name, func(t *testing.T) { spiedExec(t, c.change) })
	}
}

func spiedExec(t *testing.T, change func(*specs.Spec)) {
	b := newBox(t, "/attack.test")
	change(b.config)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	secret := b.path("secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	caps := []string{"CAP_SYS_PTRACE"}
	b.config.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	b.config.Process.Env = append(b.config.Process.Env, spyOn+"="+secret)
	b.config.Mounts = append(b.config.Mounts, specs.Mount{Destination: "/attack.test", Type: "bind", Source: self, Options: []string{"bind", "ro"}})
	b.must("run", "--detach", "spy")
	b.written("up")
	rounds := 40
	if os.Getenv("CAPSULE_TEST_SLOW") != "" {
		rounds = 10
	}
	for range rounds {
		b.must("exec", "--env", spyOn+"=", "--user", "7:7", "spy", "true")
	}
	if found := b.out("found"); found != "" {
		lines := strings.Split(found, "\n")
		t.Errorf("%d ways to the host:\n%s", len(lines)-1, strings.Join(lines[:min(len(lines), 12)], "\n"))
	}
	if seen, err := strconv.Atoi(b.out("seen")); err != nil || seen == 0 {
		t.Errorf("nothing was looked at: %q", b.out("seen"))
	}
}
