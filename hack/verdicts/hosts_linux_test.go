package verdicts

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hostVariable is set where the table runs again as on another host.
const hostVariable = "CAPSULE_VERDICTS_HOST"

// TestOnOtherHosts runs the table again, in a mount namespace, as on hosts with
// other control groups than this one.
func TestOnOtherHosts(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv(hostVariable) != "" || slow() > 1 {
		return // the machines for tests have the tree that they have
	}
	hosts := map[string]string{"no_cgroups": "mount -t tmpfs none /sys/fs/cgroup"}
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup/unified", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		hosts["v1_alone"] = "umount /sys/fs/cgroup/unified"
	}
	for name, arrange := range hosts {
		t.Run(name, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-ec", arrange+`; exec "$0" -test.run '^TestVerdicts$' -test.timeout=10m`, self)
			cmd.Env = append(os.Environ(), hostVariable+"="+name)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // Go makes it private
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
