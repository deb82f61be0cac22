package container

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mostAccounts bounds what is read of a container's accounts, in bytes.
const mostAccounts = 1 << 20

// withHome is a process that has HOME, as runc and crun see to it: programs look for it, and
// CRI-O and containerd leave it to the runtime. accounts opens the container's /etc/passwd; a
// user whom that does not have is at home in /. What is given is not changed.
func withHome(p *specs.Process, accounts func() (*os.File, error)) *specs.Process {
	if p == nil || slices.ContainsFunc(p.Env, func(v string) bool { return strings.HasPrefix(v, "HOME=") }) {
		return p
	}
	home := "/"
	if file, err := accounts(); err == nil {
		home = homeOf(file, p.User.UID)
		file.Close()
	}
	out := *p
	out.Env = append(slices.Clone(p.Env), "HOME="+home)
	return &out
}

// homeOf is the directory of a user by accounts in the form of passwd(5).
func homeOf(accounts io.Reader, uid uint32) string {
	lines := bufio.NewScanner(io.LimitReader(accounts, mostAccounts))
	for lines.Scan() {
		field := strings.Split(lines.Text(), ":")
		if len(field) < 6 || field[2] != strconv.FormatUint(uint64(uid), 10) {
			continue
		}
		if filepath.IsAbs(field[5]) && !strings.Contains(field[5], "\x00") {
			return field[5]
		}
		break
	}
	return "/"
}

// accountsOf opens the accounts that a container is going to have: those of its root, or what
// is mounted in front of them.
func accountsOf(s *specs.Spec, bundle string) func() (*os.File, error) {
	const name = "/etc/passwd"
	for _, m := range slices.Backward(s.Mounts) {
		if filepath.Clean(m.Destination) == name && filepath.IsAbs(m.Source) {
			return func() (*os.File, error) { return openAccounts("/", m.Source) }
		}
	}
	root := ""
	if s.Root != nil {
		root = s.Root.Path
	}
	if !filepath.IsAbs(root) {
		root = filepath.Join(bundle, root)
	}
	return func() (*os.File, error) { return openAccounts(root, name) }
}

// openAccounts opens a file below a root that nobody vouches for: no name leads out of it, and
// neither a FIFO nor a device is opened, nor a file that the kernel makes up.
func openAccounts(root, name string) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	found, err := unix.Openat2(dir, name, &how)
	if err != nil {
		return nil, err
	}
	defer unix.Close(found)
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return nil, err
	}
	// What procfs and its like make up while it is read, the kernel's log above all, is read with
	// our rights, and may not end. Its size is zero.
	var of unix.Statfs_t
	if err := unix.Fstatfs(found, &of); err != nil {
		return nil, err
	}
	madeUp := slices.Contains([]int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.TRACEFS_MAGIC, unix.DEBUGFS_MAGIC}, int64(of.Type))
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 || madeUp {
		return nil, unix.EINVAL
	}
	// Without waiting for who has a lease on it.
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(found), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}
