package host

import (
	"slices"
	"strings"

	"github.com/capsule-run/capsule/shim/bundle"
	"golang.org/x/sys/unix"
)

// systemEntries are the directories that hold the host's programs and libraries.
// /opt, /srv and the like are not among them: they hold data as well.
func systemEntries() []bundle.Entry {
	entries := make([]bundle.Entry, 0, 8)
	for _, path := range [...]string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		entries = appendEntry(entries, path)
	}
	return entries
}

// etcEntries are the only things of the host's /etc that a sandbox sees: what
// the dynamic loader, TLS, the alternatives system and an installed JVM need to
// work, and no secrets or names of the host.
func etcEntries() []bundle.Entry {
	entries := make([]bundle.Entry, 0, 12)
	for _, path := range [...]string{
		"/etc/ld.so.cache",
		"/etc/alternatives",
		"/etc/ssl/certs", "/etc/ssl/openssl.cnf",
		// Arch and Fedora keep there what /etc/ssl links to; the directories
		// above also hold keys and hooks.
		"/etc/ca-certificates/extracted",
		"/etc/pki/tls/certs", "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust/extracted",
	} {
		entries = appendEntry(entries, path)
	}
	for _, path := range jvmConfigurations() {
		entries = appendEntry(entries, path)
	}
	return entries
}

// jvmConfigurations are the directories of /etc to which Debian's OpenJDK
// packages link their conf directory: /usr/lib/jvm/java-17-openjdk-amd64/conf
// leads to /etc/java-17-openjdk.
func jvmConfigurations() []string {
	dir, err := unix.Open("/usr/lib/jvm", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	names, err := list(dir)
	if err != nil {
		return nil
	}
	var paths []string
	for _, name := range names {
		version, isJava := strings.CutPrefix(name, "java-")
		version, _, isOpenJDK := strings.Cut(version, "-openjdk-")
		if isJava && isOpenJDK && version != "" && strings.Trim(version, "0123456789") == "" {
			paths = append(paths, "/etc/java-"+version+"-openjdk")
		}
	}
	return paths
}

// appendEntry adds path as it is found, without following a symbolic link in
// the last place. What is missing, or is no file, directory or link, is left out.
func appendEntry(entries []bundle.Entry, path string) []bundle.Entry {
	if e, ok := entryAt(unix.AT_FDCWD, path, path); ok {
		return append(entries, e)
	}
	return entries
}

// entryAt describes name below the directory dirfd, shown inside as path.
func entryAt(dirfd int, name, path string) (bundle.Entry, bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return bundle.Entry{}, false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return bundle.Entry{Path: path, Kind: bundle.Directory}, true
	case unix.S_IFREG:
		return bundle.Entry{Path: path, Kind: bundle.RegularFile}, true
	case unix.S_IFLNK:
		var buf [unix.PathMax]byte
		n, err := unix.Readlinkat(dirfd, name, buf[:])
		if err != nil || n == 0 || n == len(buf) {
			return bundle.Entry{}, false
		}
		return bundle.Entry{Path: path, Kind: bundle.Symlink, Target: string(buf[:n])}, true
	}
	return bundle.Entry{}, false
}

// list gives the names in the directory fd, sorted. It avoids package os,
// which would first register the directory with the poller.
func list(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
