package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestStreamsMayBeOpened: a command that is not root opens /dev/stdout and /dev/stderr when they
// are pipes of the caller's, as images whose logs are links to them do. In a user namespace too,
// and as a later process.
func TestStreamsMayBeOpened(t *testing.T) {
	const again = "echo out >/dev/stdout; echo bad >/dev/stderr"
	for name, change := range map[string]func(*box){"host's ids": func(*box) {}, "user namespace": (*box).mapped} {
		b := newBox(t, "sh", "-c", again)
		change(b)
		b.config.Process.User.UID, b.config.Process.User.GID = 1000, 1000
		try := func(args ...string) {
			t.Helper()
			b.save()
			var out, bad bytes.Buffer // of pipes
			cmd := b.command(args...)
			cmd.Stdout, cmd.Stderr = &out, &bad
			if err := cmd.Run(); err != nil || out.String() != "out\n" || bad.String() != "bad\n" {
				t.Errorf("%s, %s: %v, %q %q", name, args[0], err, out.String(), bad.String())
			}
		}
		try("run", "--bundle", b.dir, "opens")
		b.config.Process.Args = []string{"sh", "-c", forever}
		b.must("run", "--detach", "stays")
		try("exec", "--user", "1001:1001", "stays", "sh", "-c", again)
		b.must("delete", "--force", "stays")
	}
}

// TestStreamsKeepTheirOwner: nothing but such a pipe changes hands.
func TestStreamsKeepTheirOwner(t *testing.T) {
	b := newBox(t, "sh", "-c", "true")
	b.config.Process.User = specs.User{UID: 1000, GID: 1000}
	b.save()
	if err := unix.Mkfifo(b.path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(name string) *os.File {
		t.Helper()
		f, err := os.OpenFile(b.path(name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	r, others, err := os.Pipe()
	if err == nil {
		err = others.Chown(4321, 4321)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer others.Close()
	for why, c := range map[string]struct {
		f     *os.File
		owner uint32
	}{"a file": {open("file"), 0}, "a FIFO with a name": {open("fifo"), 0}, "a pipe of another": {others, 4321}} {
		var bad strings.Builder
		cmd := b.command("run", "--bundle", b.dir, "keeps")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.f, c.f, &bad
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v: %s", why, err, bad.String())
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(c.f.Fd()), &st); err != nil || st.Uid != c.owner {
			t.Errorf("%s: its owner is %d, %v", why, st.Uid, err)
		}
	}
}
