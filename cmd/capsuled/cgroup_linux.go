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

// warnOfRestart tells what a restart would fail of: systemd before 254 puts the
// new capsuled into the unit's own cgroup, which the kernel refuses (EBUSY) while
// sandboxes below it use controllers.
func warnOfRestart(log *slog.Logger) {
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return // no cgroups, nothing to warn of
	}
	own, ok := unified(string(content))
	if !ok || path.Base(own) == leaf {
		return
	}
	var value [8]byte
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		n, err := unix.Getxattr("/sys/fs/cgroup"+own, name, value[:])
		if err == nil && string(value[:n]) == "1" {
			log.Warn("this unit is delegated without DelegateSubgroup="+leaf+", so it cannot be restarted while sandboxes run: "+
				"install old-systemd.conf (docs/operations.md)", "cgroup", own)
			return
		}
	}
}

// unified is the path of the cgroup v2 group in /proc/self/cgroup, when there is
// no other hierarchy.
func unified(content string) (string, bool) {
	own, ok := strings.CutPrefix(content, "0::")
	own = strings.TrimSuffix(own, "\n")
	return own, ok && !strings.Contains(own, "\n")
}
