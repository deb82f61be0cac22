package main

import (
	"log/slog"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// leaf is the cgroup that capsuled.service names as DelegateSubgroup, and into
// which runtime/cgroup moves processes otherwise.
const leaf = "capsule.leaf"

// besideUnit tells whether sandboxes have to be beside this unit: systemd before
// 254, which does not know DelegateSubgroup, puts a new capsuled into the unit's own
// cgroup, which the kernel refuses (EBUSY) while sandboxes below it use controllers.
func besideUnit(log *slog.Logger) bool {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || os.Getenv("INVOCATION_ID") == "" {
		return false // no cgroups, or no unit
	}
	own, ok := unified(string(content))
	if !ok || path.Base(own) == leaf {
		return false
	}
	var value [8]byte
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		n, err := unix.Getxattr("/sys/fs/cgroup"+own, name, value[:])
		if err == nil && string(value[:n]) == "1" {
			log.Info("systemd does not know DelegateSubgroup="+leaf+" of this unit: sandboxes are beside it, so that it can be restarted", "cgroup", own)
			return true
		}
	}
	return false
}

// unified is the path of the cgroup v2 group in /proc/self/cgroup, when there is
// no other hierarchy.
func unified(content string) (string, bool) {
	own, ok := strings.CutPrefix(content, "0::")
	own = strings.TrimSuffix(own, "\n")
	return own, ok && !strings.Contains(own, "\n")
}
