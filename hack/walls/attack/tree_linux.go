package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// masked looks for content behind the paths that are covered.
func masked(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return errnoName(err)
	}
	if info.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return errnoName(err)
		}
		if len(entries) == 0 {
			return "empty"
		}
		return "content"
	}
	f, err := os.Open(path)
	if err != nil {
		return errnoName(err)
	}
	defer f.Close()
	if n, _ := f.Read(make([]byte, 64)); n > 0 {
		return "content"
	}
	return "empty"
}

// sysctl writes what a file below /proc/sys holds back into it.
func sysctl(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "read " + errnoName(err)
	}
	return errnoName(os.WriteFile(path, text, 0))
}

// harmless are the trees that the payload is given to write in, and the
// process's own entries.
var harmless = []string{"/tmp", "/var/tmp", "/run", "/workspace", "/dev/shm", "/dev/mqueue", "/proc"}

// writable walks the tree and gives what could be written, the top 4 levels
// of it, and every mount point. Devices are written to by design.
func writable(string) string {
	var found []string
	try := func(path string) {
		if !within(path, harmless) && unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil {
			found = append(found, path)
		}
	}
	_ = filepath.WalkDir("/", func(path string, d os.DirEntry, err error) error {
		if err != nil || within(path, harmless) {
			return filepath.SkipDir
		}
		// Not d.Type: it is the type of what a mount covers.
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK && st.Mode&unix.S_IFMT != unix.S_IFCHR {
			try(path)
		}
		if d.IsDir() && strings.Count(path, "/") >= 4 {
			return filepath.SkipDir
		}
		return nil
	})
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(text)) {
		point := strings.Fields(line)[4]
		var st unix.Stat_t
		if unix.Stat(point, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFCHR {
			try(point)
		}
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), " ")
}

func within(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return path == d || strings.HasPrefix(path, d+"/") })
}

// devices lists /dev with types and numbers.
func devices(string) string {
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return errnoName(err)
	}
	var out []string
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Lstat("/dev/"+e.Name(), &st); err != nil {
			return errnoName(err)
		}
		kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFDIR: "d", unix.S_IFREG: "-"}[st.Mode&unix.S_IFMT]
		switch {
		case e.Type()&os.ModeSymlink != 0:
			target, _ := os.Readlink("/dev/" + e.Name())
			out = append(out, e.Name()+">"+target)
		case kind == "c" || kind == "b":
			out = append(out, fmt.Sprintf("%s=%s%d:%d", e.Name(), kind, unix.Major(st.Rdev), unix.Minor(st.Rdev)))
		default:
			out = append(out, e.Name()+"="+kind)
		}
	}
	return strings.Join(out, " ")
}

// filesystems are the types that are mounted.
func filesystems(string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return errnoName(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		_, tail, _ := strings.Cut(line, " - ")
		out = append(out, strings.Fields(tail)[0])
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

func exists(path string) string {
	var st unix.Stat_t
	return errnoName(unix.Lstat(path, &st))
}

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return errnoName(err)
	}
	return strings.TrimSpace(string(text))
}

// create makes a file and leaves it.
func create(path string) string {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
	if err == nil {
		unix.Close(fd)
	}
	return errnoName(err)
}

// open opens for writing what exists.
func open(path string) string {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errnoName(err)
}
