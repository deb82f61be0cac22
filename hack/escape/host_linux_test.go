package escape

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// settings of the kernel that an escape would change.
var settings = []string{
	"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/domainname",
	"/proc/sys/kernel/poweroff_cmd", "/proc/sys/kernel/hotplug", "/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/kernel/randomize_va_space",
	"/proc/sys/kernel/sysrq", "/proc/sys/fs/suid_dumpable", "/proc/sys/fs/protected_symlinks", "/proc/sys/vm/overcommit_memory",
	"/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/binfmt_misc/status", "/proc/self/oom_score_adj",
}

// snapshot is what a test may not change, by name.
type snapshot map[string]string

// digest covers name, type, mode, owner, size and the times of change of
// everything below dir: whatever is written there changes the time that no
// user can set.
func digest(dir string) string {
	h := sha256.New()
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintln(h, path, err)
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			fmt.Fprintln(h, path, err)
			return nil
		}
		fmt.Fprintln(h, path, st.Mode, st.Uid, st.Gid, st.Size, st.Rdev, st.Mtim, st.Ctim)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil))
}

// contents covers the bytes of regular files too.
func contents(dir string) string {
	h := sha256.New()
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if f, err := os.Open(path); err == nil {
				_, _ = io.Copy(h, f) // what cannot be read is the same each time
				f.Close()
			}
		}
		return nil
	})
	return digest(dir) + hex.EncodeToString(h.Sum(nil))
}

// look takes a snapshot.
func look(t testing.TB, watched ...string) snapshot {
	t.Helper()
	bin, err := programs()
	must(t, err)
	s := snapshot{"our programs": contents(bin), "/etc": digest("/etc"), "/boot": digest("/boot"), "/usr/sbin": digest("/usr/sbin")}
	for _, path := range settings {
		text, err := os.ReadFile(path)
		s[path] = fmt.Sprint(string(text), err)
	}
	for _, dir := range watched {
		s[dir] = contents(dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	s["mounts"] = string(mounts)
	s["cgroups"] = strings.Join(groups(), "\n")
	for _, dev := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx"} {
		var st unix.Stat_t
		if err := unix.Stat(dev, &st); err == nil {
			s[dev] = fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Rdev)
		}
	}
	return s
}

// groups are the programs that control groups start on the host when they are
// empty: what an escape through a group would change. Groups themselves come and
// go with whoever else works here; see ourGroups.
func groups() []string {
	var all []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if strings.Contains(d.Name(), "capsule") {
			return fs.SkipDir
		}
		if release, err := os.ReadFile(filepath.Join(path, "release_agent")); err == nil { // v1 alone has it, at the top
			all = append(all, path+" "+string(release))
		}
		return nil
	})
	return all
}

// ourGroups are the control groups of our executions.
func ourGroups() []string {
	var all []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if id, ok := strings.CutPrefix(d.Name(), "capsule-"); ok {
				if _, ours := executions.Load(id); ours {
					all = append(all, path)
				}
			}
		}
		return nil
	})
	return all
}

// begin takes a snapshot; when the test ends the host must be the same, and
// nothing of the test's may be left.
func begin(t *testing.T, watched ...string) {
	t.Helper()
	before := look(t, watched...)
	t.Cleanup(func() {
		after := look(t, watched...)
		for name, was := range before {
			if after[name] != was {
				t.Errorf("%s has changed:\n%.2000s\n%.2000s", name, was, after[name])
			}
		}
		nothingLeft(t)
	})
}

// nothingLeft waits until nothing of our executions exists: what is killed
// needs a moment to be gone.
func nothingLeft(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patient(10 * time.Second))
	for {
		left := children(t)
		entries, err := os.ReadDir(filepath.Join(stateDir(), "executions"))
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if len(left) == 0 {
			left = ourGroups()
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left: %v", left)
			putDown(t)
			return
		}
		time.Sleep(2 * time.Millisecond) // the end of strangers sends no event
	}
}

// putDown ends what should have ended, so that the next test has a clean start.
func putDown(t *testing.T) {
	t.Helper()
	for range 100 {
		all := children(t)
		if len(all) == 0 {
			break
		}
		for _, text := range all {
			var pid int
			if _, err := fmt.Sscan(text, &pid); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL) // our unreaped child: its number is nobody else's
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	entries, _ := os.ReadDir(filepath.Join(stateDir(), "executions"))
	for _, e := range entries {
		_ = os.RemoveAll(filepath.Join(stateDir(), "executions", e.Name()))
	}
}

// TestTheWatchSees holds the watch itself to what it must see.
func TestTheWatchSees(t *testing.T) {
	dir := scratch(t)
	must(t, os.WriteFile(dir+"/file", []byte("a"), 0o644))
	was := []string{digest(dir), contents(dir)}
	must(t, os.WriteFile(dir+"/file", []byte("b"), 0o644))
	must(t, os.Chtimes(dir+"/file", time.Unix(1, 0), time.Unix(1, 0)))
	if now := []string{digest(dir), contents(dir)}; now[0] == was[0] || now[1] == was[1] || now[0] == now[1] {
		t.Errorf("%v and %v", was, now)
	}
	if g := groups(); len(g) > 0 && slices.Contains(g, "") {
		t.Error("empty names of control groups")
	}
}
