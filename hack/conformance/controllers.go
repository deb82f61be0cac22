package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// wanted names the controllers of v1 that a program takes for granted and hosts seldom mount.
func wanted(program string) []string {
	switch strings.Replace(program, "_relative", "", 1) {
	case "linux_cgroups_hugetlb":
		return []string{"hugetlb"}
	case "linux_cgroups_network":
		return []string{"net_cls", "net_prio"}
	}
	return nil
}

// v1 tells whether the host has control groups of v1 and the kernel the controllers that a
// program wants.
func v1(program string) bool {
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		return false
	}
	text, err := hierarchies()
	if err != nil {
		return false
	}
	_, ok := unmounted(wanted(program), text)
	// What the v2 tree beside it passes on cannot be mounted.
	passed, _ := os.ReadFile("/sys/fs/cgroup/unified/cgroup.subtree_control")
	for _, name := range wanted(program) {
		ok = ok && !slices.Contains(strings.Fields(string(passed)), name)
	}
	return ok
}

// unmounted are those of the wanted controllers that the host's tree lacks. ok is false when
// the kernel does not have them all.
func unmounted(wanted []string, cgroups string) (list []string, ok bool) {
	for _, name := range wanted {
		if hierarchy(cgroups, name) == "" {
			return nil, false
		}
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", name)); err != nil {
			list = append(list, name)
		}
	}
	return list, true
}

// hierarchy is the number of a controller's hierarchy as /proc/cgroups has it: "0" where no
// v1 hierarchy has the controller, "" where the kernel does not have it.
func hierarchy(cgroups, name string) string {
	_, text, _ := strings.Cut("\n"+cgroups, "\n"+name+"\t")
	number, _, _ := strings.Cut(text, "\t")
	return number
}

// free are those that no v1 hierarchy has.
func free(controllers []string, cgroups string) (list []string) {
	for _, name := range controllers {
		if hierarchy(cgroups, name) == "0" {
			list = append(list, name)
		}
	}
	return list
}

// hierarchies reads what the kernel has.
func hierarchies() (string, error) {
	text, err := os.ReadFile("/proc/cgroups")
	return string(text), err
}

// mounting is the script that mounts controllers beside those of the host, in the mount
// namespace that it runs in, and then executes the program.
//
//go:embed mounting.sh
var mounting string

// returned gives controllers back to the kernel. A hierarchy outlives its last mount while
// groups that have been removed are not gone yet, so it is mounted and left once more. Groups
// that are left are an error; one that a container of somebody else has mounted meanwhile is
// freed when that ends, which is told. dir is a scratch directory.
func returned(controllers []string, dir string) error {
	at := filepath.Join(dir, "returned")
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, err := hierarchies()
		if err != nil || len(free(controllers, text)) == len(controllers) {
			return err
		}
		var groups []byte
		for _, name := range controllers {
			cmd := exec.Command("sh", "-c", `mount -t cgroup -o "$1" cgroup "$2" && find "$2" -mindepth 1 -type d`, "sh", name, at)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			found, _ := cmd.Output() // the loop tells whether it helped
			groups = append(groups, found...)
		}
		if !time.Now().After(deadline) {
			continue
		}
		if len(groups) > 0 {
			return fmt.Errorf("control groups are left, as seen at %s:\n%s", at, groups)
		}
		fmt.Fprintf(os.Stderr, "conformance: another has one of the controllers %v mounted too\n", controllers)
		return nil
	}
}
