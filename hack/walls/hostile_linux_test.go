package walls

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// treeHash covers names, modes, owners, times and contents below dir.
func treeHash(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %o %d:%d %d %v\n", path, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim)
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			h.Write(content)
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			fmt.Fprintln(h, target)
			return err
		}
		return nil
	}))
	return hex.EncodeToString(h.Sum(nil))
}

// answer is what capsulectl said.
type answer struct {
	code   int
	output string
	spec.Response
}

// capsulectl runs one request through the built programs.
func capsulectl(t *testing.T, state string, request map[string]any) answer {
	t.Helper()
	bin, err := programs()
	must(t, err)
	document, err := json.Marshal(request)
	must(t, err)
	var out, log bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "capsulectl"), "run", "--json")
	cmd.Env = []string{"CAPSULE_STATE=" + state, "PATH=/usr/bin:/bin", "HOME=/nonexistent"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(document), &out, &log
	must(t, cmd.Start())
	timer := time.AfterFunc(patient(time.Minute), func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait() // the code says it
	timer.Stop()
	a := answer{code: cmd.ProcessState.ExitCode()}
	if err := json.Unmarshal(out.Bytes(), &a.Response); err != nil {
		t.Fatalf("capsulectl: %v\n%s\n%s", err, out.String(), log.String())
	}
	if a.Stdout != nil {
		a.output = *a.Stdout
	}
	return a
}

// TestHostileRootfs gives roots that were made to misdirect whoever sets them
// up. Each is refused, or shows nothing of the host and changes nothing there.
func TestHostileRootfs(t *testing.T) {
	exe, err := os.Executable()
	must(t, err)
	secret := scratch(t)
	must(t, os.WriteFile(secret+"/secret", []byte("of the host"), 0o666))
	for _, name := range []string{"proc", "sys", "dev", "tmp", "null", "pts", "shm", "deep", "1"} {
		must(t, os.Mkdir(filepath.Join(secret, name), 0o777))
		must(t, unix.Chmod(filepath.Join(secret, name), 0o777))
	}
	link := func(name string) func(string) {
		return func(root string) { must(t, os.Symlink(secret, filepath.Join(root, name))) }
	}
	below := func(name string) func(string) {
		return func(root string) {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
			must(t, os.Symlink(secret, filepath.Join(root, name)))
		}
	}
	cases := map[string]struct {
		make        func(root string)
		destination string // of a bind
		refused     bool
	}{
		"proc":                {link("proc"), "", true},
		"sys":                 {link("sys"), "", true},
		"dev":                 {link("dev"), "", true},
		"tmp":                 {link("tmp"), "", false},
		"run":                 {link("run"), "", false},
		"workspace":           {link("workspace"), "", false},
		"etc":                 {link("etc"), "", false},
		"usr":                 {link("usr"), "", false},
		"var":                 {link("var"), "", false},
		"var/tmp":             {below("var/tmp"), "", false},
		"dev/null":            {below("dev/null"), "", false},
		"dev/pts":             {below("dev/pts"), "", false},
		"dev/shm":             {below("dev/shm"), "", false},
		"proc/1":              {below("proc/1"), "", false},
		"relative proc":       {func(root string) { must(t, os.Symlink("../../../../../../.."+secret, root+"/proc")) }, "", true},
		"bind over a link":    {link("data"), "/data", false},
		"bind below a link":   {link("data"), "/data/deep", false},
		"bind below etc":      {below("etc/deep"), "/etc/deep/x", true},
		"bind over in etc":    {below("etc/deep"), "/etc/deep", true},
		"bind below self":     {func(root string) { must(t, os.Symlink("/proc/self/root", root+"/data")) }, "/data/x", true},
		"bind below a fd":     {func(root string) { must(t, os.Symlink("/proc/self/fd/4", root+"/data")) }, "/data/x", true},
		"the attacker itself": {below(strings.TrimPrefix(attackerPath, "/")), "", false},
		"a file for usr":      {func(root string) { must(t, os.WriteFile(root+"/usr", []byte("x"), 0o644)) }, "", false},
		"a fifo for usr":      {func(root string) { must(t, unix.Mkfifo(root+"/usr", 0o666)) }, "", false},
	}
	state := filepath.Join(scratch(t), "state")
	before := treeHash(t, secret)
	for name, c := range cases {
		root := filepath.Join(scratch(t), "root")
		must(t, os.Mkdir(root, 0o755))
		c.make(root)
		rootBefore := treeHash(t, root)
		binds := []any{map[string]any{"source": exe, "destination": attackerPath}}
		if c.destination != "" {
			binds = append(binds, map[string]any{"source": secret + "/deep", "destination": c.destination, "readonly": false})
		}
		secretInside := "exists:" + secret + "/secret"
		a := capsulectl(t, state, map[string]any{
			"command": []string{attackerPath, "attack", secretInside, "read:/etc/secret", "read:/usr/secret", "read:/var/secret", "read:/data/secret",
				"read:/var/tmp/secret", "devices", "create:/tmp/made", "create:/run/made", "create:/workspace/made", "create:/dev/shm/made", "processes"},
			"isolation": map[string]any{"rootfs": root, "bind_mounts": binds, "allow_degraded": []string{spec.WallIDMap}},
		})
		switch {
		case c.refused && a.code != 125:
			t.Errorf("%s: not refused, but %d\n%s", name, a.code, a.output)
		case a.code == 125 && !c.refused:
			t.Errorf("%s: refused: %v", name, a.Error)
		case a.code == 0 && (strings.Contains(a.output, "of the host") || !strings.Contains(a.output, secretInside+" ENOENT") ||
			!strings.Contains(a.output, "devices "+devicesInside+"\n")):
			t.Errorf("%s:\n%s", name, a.output)
		}
		if treeHash(t, secret) != before {
			t.Fatalf("%s: the host's tree has changed", name)
		}
		if treeHash(t, root) != rootBefore {
			t.Errorf("%s: the root has changed", name)
		}
	}
}

// TestRacedBind starts sandboxes with a bind whose path leads through a
// directory that is exchanged all the time for a link to the host's /etc. It
// shows the harmless file or is refused, and never what /etc has.
func TestRacedBind(t *testing.T) {
	secret, err := os.ReadFile("/etc/passwd")
	must(t, err)
	for _, readonly := range []bool{true, false} {
		dir := scratch(t)
		must(t, os.Mkdir(dir+"/a", 0o755))
		must(t, os.WriteFile(dir+"/a/passwd", []byte("harmless"), 0o666))
		must(t, os.Symlink("/etc", dir+"/b"))
		var stop atomic.Bool
		done := make(chan int)
		go func() {
			n := 0
			for !stop.Load() {
				if unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE) == nil {
					n++
				}
				// Without a pause nobody's path look-up ends but by chance.
				time.Sleep(20 * time.Microsecond)
			}
			done <- n
		}()
		shown, refused := race(t, dir+"/a/passwd", readonly, string(secret), max(20, 150/slow()))
		stop.Store(true)
		t.Logf("readonly %v: %d exchanges, %d sandboxes showed the harmless file, %d were refused", readonly, <-done, shown, refused)
		if shown == 0 || refused == 0 {
			t.Errorf("readonly %v: %d showed the file and %d were refused: there was no race", readonly, shown, refused)
		}
	}
	after, err := os.ReadFile("/etc/passwd")
	must(t, err)
	if !bytes.Equal(secret, after) {
		t.Fatal("/etc/passwd has changed")
	}
}

// race starts sandboxes until each outcome was seen, at least n.
func race(t *testing.T, path string, readonly bool, secret string, n int) (shown, refused int) {
	t.Helper()
	state := filepath.Join(scratch(t), "state")
	exe, err := os.Executable()
	must(t, err)
	for i := 0; i < n || (shown == 0 || refused == 0) && i < 3*n; i++ {
		a := capsulectl(t, state, map[string]any{
			"command": []string{attackerPath, "attack", "read:/host", "open:/host"},
			"isolation": map[string]any{"allow_degraded": []string{spec.WallIDMap}, "bind_mounts": []any{map[string]any{"source": exe, "destination": attackerPath},
				map[string]any{"source": path, "destination": "/host", "readonly": readonly}}},
		})
		switch {
		case a.code == 125:
			refused++
		case strings.HasPrefix(a.output, "read:/host harmless\n"):
			shown++
		case strings.Contains(a.output, strings.SplitN(secret, "\n", 2)[0]):
			t.Fatalf("the sandbox shows the host's file:\n%s", a.output)
		default:
			t.Fatalf("neither refused nor harmless: %d %v\n%s", a.code, a.Error, a.output)
		}
	}
	return shown, refused
}

// TestOwnPrograms: a command that leads to /proc/self/exe names, at the moment
// of execve, the shim. The shim then runs as an ordinary command without the
// descriptors that it needs, and nothing of the attacker's runs beside it, so
// nobody holds on to it (CVE-2019-5736).
func TestOwnPrograms(t *testing.T) {
	bin, err := programs()
	must(t, err)
	dir := scratch(t)
	must(t, os.WriteFile(dir+"/script", []byte("#!/proc/self/exe\n"), 0o755))
	must(t, os.Chmod(dir+"/script", 0o755))
	must(t, os.Symlink("/proc/self/exe", dir+"/link"))
	before := treeHash(t, bin)
	state := filepath.Join(scratch(t), "state")
	boot := `{"version":1,"execution_id":"x","state_dir":"/workspace","foreground":true,"seccomp_helper":"/host/script"}`
	for _, command := range [][]string{{"/proc/self/exe"}, {"/host/link"}, {"/host/script"}, {"/proc/self/exe", "sweep", "/workspace"}, {"/host/link", "sweep", "/host"}} {
		for _, init := range []bool{true, false} {
			a := capsulectl(t, state, map[string]any{"command": command, "stdin": boot, "isolation": map[string]any{"init": init,
				"bind_mounts": []any{map[string]any{"source": dir, "destination": "/host", "readonly": false}}}})
			if a.code == 0 || a.output != "" {
				t.Errorf("%q, init %v: code %d, output %q", command, init, a.code, a.output)
			}
		}
	}
	if treeHash(t, bin) != before {
		t.Fatal("our programs have changed")
	}
	names, err := os.ReadDir(dir)
	must(t, err)
	if slices.ContainsFunc(names, func(e fs.DirEntry) bool { return e.Name() != "script" && e.Name() != "link" }) {
		t.Errorf("left behind: %v", names)
	}
}
