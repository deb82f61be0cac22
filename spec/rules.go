package spec

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// badPath makes the fault of a path that breaks a lexical rule.
func badPath(p, format string, args ...any) *fault.Fault {
	return fault.New(fault.InvalidPath, "", shown(p)+" "+fmt.Sprintf(format, args...))
}

// absolutePath holds for every path of a request. Whether it exists and what
// it leads to are facts of the host and looked at there, by descriptor.
func absolutePath(p string) *fault.Fault {
	switch {
	case !strings.HasPrefix(p, "/"):
		return badPath(p, "is not an absolute path")
	case hasDotDot(p):
		return badPath(p, "contains `..`")
	case path.Clean(p) != p:
		return badPath(p, "is not clean").WithHint("Write it as " + shown(path.Clean(p)) + ".")
	}
	return nil
}

func hasDotDot(p string) bool {
	for e := range strings.SplitSeq(p, "/") {
		if e == ".." {
			return true
		}
	}
	return false
}

// below says whether p is dir or lies under it. Both are clean.
func below(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

// bindTarget is the rule for the place where a bind mount appears: the root
// and the kernel's file systems belong to the sandbox itself (runc
// CVE-2019-16884: a mount over /proc redirects protective writes).
func bindTarget(p string) *fault.Fault {
	if f := absolutePath(p); f != nil {
		return f
	}
	if p == "/" {
		return badPath(p, "may not be mounted over").WithHint("To bring a root of your own use rootfs; otherwise choose a directory below /.")
	}
	for _, own := range []string{"/proc", "/sys", "/dev"} {
		if below(p, own) {
			return badPath(p, "is in a directory that the sandbox makes for itself").WithHint("Choose a destination outside of /proc, /sys and /dev; the sandbox has its own.")
		}
	}
	return nil
}

// workingDirectory also refuses /proc: /proc/self/fd/N led out of the root in
// runc CVE-2024-21626.
func workingDirectory(p string) *fault.Fault {
	if f := absolutePath(p); f != nil {
		return f
	}
	if below(p, "/proc") {
		return badPath(p, "lies in /proc").WithHint("Choose another directory: from /proc a command could be led out of its root.")
	}
	return nil
}

func rootDirectory(p string) *fault.Fault {
	if f := absolutePath(p); f != nil {
		return f
	}
	if p == "/" {
		return badPath(p, "may not be the root of a sandbox").WithHint("Leave rootfs out: the host's system directories are then shown read-only.")
	}
	return nil
}

func isAlpha(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// onlyBytes says whether every byte of s is a letter, a digit or in others.
func onlyBytes(s, others string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlpha(s[i]) && !isDigit(s[i]) && strings.IndexByte(others, s[i]) < 0 {
			return false
		}
	}
	return true
}

// IsVariableName says whether s may be a key of environment.
func IsVariableName(s string) bool { return variableName(s) == nil }

// variableName is the rule for keys of environment.
func variableName(s string) *fault.Fault {
	if s == "" || isDigit(s[0]) || !onlyBytes(s, "_") {
		return invalid("%s is not a variable name", shown(s)).WithHint("Names match [A-Za-z_][A-Za-z0-9_]*.")
	}
	return nil
}

func labelKey(s string) *fault.Fault {
	if s == "" || !onlyBytes(s[:1], "") || !onlyBytes(s, "._/-") {
		return invalid("%s is not a label key", shown(s)).WithHint("Keys match [A-Za-z0-9][A-Za-z0-9._/-]*.")
	}
	return nil
}

// labelValue refuses control characters because listings print labels on
// terminals.
func labelValue(s string) *fault.Fault {
	for _, c := range s {
		if c < 0x20 || 0x7f <= c && c < 0xa0 {
			return invalid("contains the control character %U", c)
		}
	}
	return nil
}

// hostnameRule is RFC 1123, section 2.1.
func hostnameRule(s string) *fault.Fault {
	for part := range strings.SplitSeq(s, ".") {
		switch {
		case part == "" || len(part) > 63:
			return invalid("%s is not a host name: each part has 1..63 bytes", shown(s))
		case part[0] == '-' || part[len(part)-1] == '-':
			return invalid("%s is not a host name: a part begins or ends with a hyphen", shown(s))
		case !onlyBytes(part, "-"):
			return invalid("%s is not a host name: only letters, digits, hyphens and dots", shown(s))
		}
	}
	return nil
}

func userRule(s string) *fault.Fault {
	_, _, err := ParseUser(s)
	if err == nil {
		return nil
	}
	return fault.From(err, fault.InvalidValue)
}

// maxID leaves out 65534, which stands for ids that are not mapped, and
// 65535, which is -1 in 16 bits.
const maxID = 65533

// ParseUser splits "uid[:gid]", each decimal without sign or leading zeros
// and 0..65533. Without a gid it is the uid, never 0 by omission. Another form
// is E1001 and a larger number E1003. It is strict because crun CVE-2026-30892
// came of a user string that parsed into root.
func ParseUser(s string) (uid, gid uint32, err error) {
	first, second, both := strings.Cut(s, ":")
	if uid, err = parseID(first); err != nil || !both {
		return uid, uid, err
	}
	gid, err = parseID(second)
	return uid, gid, err
}

func parseID(s string) (uint32, error) {
	if s == "" || s[0] == '0' && s != "0" {
		return 0, invalid("%s is not a decimal id", shown(s)).WithHint("Write uid or uid:gid, such as 1000:1000.")
	}
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return 0, invalid("%s is not a decimal id", shown(s)).WithHint("Write uid or uid:gid, such as 1000:1000.")
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxID {
		return 0, fault.New(fault.OutOfRange, "", "id "+shown(s)+" is not in 0.."+strconv.Itoa(maxID))
	}
	return uint32(n), nil
}
