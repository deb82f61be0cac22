package main

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestHome: a command whose configuration has no HOME has that of its user by the container's own
// accounts, and never by those of the host: CRI-O and containerd leave HOME to the runtime.
func TestHome(t *testing.T) {
	const accounts = "root:x:0:0:root:/the/root:/bin/sh\nbroken:x:7\nother:x:1000:1000::/home/other:/bin/sh\nodd:x:1001:1001::relative:/bin/sh\n"
	b := newBox(t, "sh", "-c", `echo "$HOME"`)
	b.mkdir("rootfs/etc")
	file := b.path("rootfs/etc/passwd")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(file, accounts)
	is := func(why, want string, args ...string) {
		t.Helper()
		if out, bad, status := b.call(args...); out != want+"\n" || status != 0 {
			t.Errorf("%s: %q %q %d, not %q", why, out, bad, status, want)
		}
	}
	for uid, want := range map[uint32]string{0: "/the/root", 7: "/", 1000: "/home/other", 1001: "/", 4000: "/"} {
		b.config.Process.User.UID = uid
		is("user of the accounts", want, "run", "user")
	}
	b.config.Process.User.UID = 0
	env := b.config.Process.Env
	b.config.Process.Env = append([]string{"HOME="}, env...)
	is("HOME of the configuration", "", "run", "given")
	b.config.Process.Env = env

	for why, make := range map[string]func() error{
		"no file":              func() error { return nil },
		"a link to the host's": func() error { return os.Symlink("../../../../../../../../etc/passwd", file) },
		"a FIFO":               func() error { return unix.Mkfifo(file, 0o644) },
		"a directory":          func() error { return os.Mkdir(file, 0o755) },
		"a link of procfs":     func() error { return os.Symlink("/proc/1/root/etc/passwd", file) },
	} {
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
		is(why, "/", "run", "odd")
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	write(file, accounts)
	write(b.path("passwd"), "root:x:0:0:root:/mounted:/bin/sh\n")
	mounts := b.config.Mounts
	b.config.Mounts = append(mounts, specs.Mount{Destination: "/etc/passwd", Type: "bind", Source: b.path("passwd"), Options: []string{"bind", "ro"}})
	is("accounts that are mounted", "/mounted", "run", "mounted")
	b.config.Mounts = mounts

	b.config.Process.Args = []string{"sh", "-c", forever}
	b.must("run", "--detach", "later")
	is("a later process", "/the/root", "exec", "later", "sh", "-c", `echo "$HOME"`)
	is("a later process of another user", "/home/other", "exec", "--user", "1000", "later", "sh", "-c", `echo "$HOME"`)
	// The kernel's log is read with the rights of who reads, and has no end.
	for _, made := range []string{"/proc/kmsg", "/proc/self/environ"} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(made, file); err != nil {
			t.Fatal(err)
		}
		is("a link to "+made, "/", "exec", "later", "sh", "-c", `echo "$HOME"`)
	}
	if text, err := os.ReadFile(b.path("config.json")); err != nil || strings.Contains(string(text), "HOME=") {
		t.Errorf("the configuration has HOME: %v", err)
	}
	b.must("delete", "--force", "later")
}
