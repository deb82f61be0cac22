package bundle

import (
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/runtime/plan"
)

// etcFiles are the synthesised files of /etc. They name nobody of the host.
func (b *builder) etcFiles() []plan.File {
	resolv := ""
	if b.req.Isolation.Network {
		resolv = b.host.ResolvConf
	}
	hostname := b.req.Isolation.Hostname
	return []plan.File{
		{Path: "/etc/passwd", Content: passwd(b.uid, b.gid)},
		{Path: "/etc/group", Content: group(b.gid)},
		{Path: "/etc/hosts", Content: "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + hostname + "\n"},
		{Path: "/etc/hostname", Content: hostname + "\n"},
		{Path: "/etc/nsswitch.conf", Content: "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n"},
		{Path: "/etc/resolv.conf", Content: resolv},
	}
}

// passwd has root, the payload's user and nobody. Its home is where the
// payload may write.
func passwd(uid, gid uint32) string {
	var s strings.Builder
	line := func(name string, uid, gid uint32, home, shell string) {
		s.WriteString(name + ":x:" + id(uid) + ":" + id(gid) + ":" + name + ":" + home + ":" + shell + "\n")
	}
	const shell, nologin = "/bin/sh", "/usr/sbin/nologin"
	if uid == 0 {
		line("root", 0, gid, home, shell)
	} else {
		line("root", 0, 0, "/", nologin)
	}
	switch uid {
	case 0:
	case nobody:
		line("nobody", nobody, gid, home, shell)
		return s.String()
	default:
		line("capsule", uid, gid, home, shell)
	}
	line("nobody", nobody, nobody, "/", nologin)
	return s.String()
}

// group has root, tty (the owner of terminals), the payload's and nogroup.
func group(gid uint32) string {
	s := "root:x:0:\ntty:x:" + id(ttyGID) + ":\n"
	if gid != 0 && gid != ttyGID && gid != nobody {
		s += "capsule:x:" + id(gid) + ":\n"
	}
	return s + "nogroup:x:" + id(nobody) + ":\n"
}

func id(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
