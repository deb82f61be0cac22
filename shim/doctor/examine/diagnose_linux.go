package examine

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// diagnosis is what is in the way: a cause of the table and how it shows here.
type diagnosis struct {
	cause, by          string
	sysctl, controller string
}

// diagnose finds the setting behind a fault. It is called after the
// kernel has refused something; it reads settings and decides among causes
// that could make this kernel give this answer.
func (x *examiner) diagnose(f *fault.Fault) diagnosis {
	switch f.Code {
	case fault.LimitUnavailable, fault.Cgroup:
		if paths, ok := f.Details["paths"].([]string); ok {
			return diagnosis{cause: "io_elsewhere", by: strings.Join(paths, ", ")}
		}
		if f.Code == fault.Cgroup && f.Errno == unix.EAGAIN {
			return diagnosis{cause: "cgroup_max", by: "cgroup.max.descendants or cgroup.max.depth above " + f.Path}
		}
		if name, ok := f.Details["controller"].(string); ok && name != "" {
			return cgroupCause(name)
		}
		if f.Code == fault.Cgroup {
			return cgroupCause("")
		}
	case fault.Seccomp:
		if _, err := os.Stat(x.opts.SeccompHelper); err != nil {
			return diagnosis{cause: "seccomp_helper", by: x.opts.SeccompHelper + " is missing"}
		}
	case fault.IO, fault.NotAuthorised:
		return diagnosis{cause: "state_directory", by: f.Path}
	case fault.CommandNotFound:
		return diagnosis{cause: "no_commands"}
	case fault.Unsupported:
		return diagnosis{cause: "kernel_old", by: "Linux " + release()}
	}
	switch {
	case f.Code == fault.IDMapping && strings.Contains(f.Field, "path"):
		return diagnosis{cause: "idmap_unsupported", by: f.Path}
	case f.Errno == unix.ENOSPC || f.Errno == unix.EUSERS:
		return x.namespacesMax(f)
	case f.Errno == unix.EAGAIN:
		return diagnosis{cause: "processes_max"}
	case f.Errno == unix.ENOSYS && filtered():
		return diagnosis{cause: "container_seccomp", by: "Seccomp: 2 in /proc/self/status"}
	case f.Errno == unix.ENOSYS || f.Errno == unix.EINVAL:
		return diagnosis{cause: "kernel_old", by: "Linux " + release() + ": " + f.Op}
	case f.Errno == unix.EPERM || f.Errno == unix.EACCES:
		return x.forbidden(f)
	}
	return diagnosis{}
}

// forbidden decides what forbids a step. The order is from what is certain to
// what is only likely.
func (x *examiner) forbidden(f *fault.Fault) diagnosis {
	admin := hasAdmin()
	switch {
	case f.Path == "/proc" && len(maskedProc()) > 0:
		return diagnosis{cause: "proc_masked", by: "mounted over: " + strings.Join(maskedProc(), " ")}
	case os.Geteuid() == 0 && !admin:
		return diagnosis{cause: "container_capabilities", by: "this root has no CAP_SYS_ADMIN"}
	case !admin && setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return diagnosis{cause: "userns_clone", by: "kernel.unprivileged_userns_clone = 0"}
	case !admin && setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return diagnosis{cause: "apparmor_userns", by: "kernel.apparmor_restrict_unprivileged_userns = 1"}
	case setting("/sys/fs/selinux/enforce") == "1" && f.Errno == unix.EACCES:
		return diagnosis{cause: "selinux", by: "SELinux, as " + label()}
	case confined():
		return diagnosis{cause: "apparmor_confined", by: "AppArmor profile " + label()}
	case filtered():
		return diagnosis{cause: "container_seccomp", by: "Seccomp: 2 in /proc/self/status"}
	case f.Op == "clone3":
		// The one reason that is left: user_namespaces(7), EPERM.
		return diagnosis{cause: "chroot", by: "/ is not the root of the mount namespace"}
	}
	return diagnosis{}
}

// namespacesMax names the sysctl of the namespace that cannot be made.
func (x *examiner) namespacesMax(f *fault.Fault) diagnosis {
	kinds := []struct{ wall, kind string }{{spec.WallUserNamespace, "user"}, {spec.WallMountNamespace, "mnt"}, {spec.WallPIDNamespace, "pid"},
		{spec.WallIPCNamespace, "ipc"}, {spec.WallUTSNamespace, "uts"}, {spec.WallNetworkNamespace, "net"}, {spec.WallTimeNamespace, "time"},
		{spec.WallCgroupNamespace, "cgroup"}}
	for _, k := range kinds {
		if x.failed[k.wall] != f {
			continue
		}
		name := "user.max_" + k.kind + "_namespaces"
		value := setting("/proc/sys/user/max_" + k.kind + "_namespaces")
		by := name + " = " + value
		if n, err := strconv.Atoi(value); err == nil && n > 0 {
			by += ", all in use, or a lower limit in an outer user namespace"
		}
		return diagnosis{cause: "namespaces_max", by: by, sysctl: name}
	}
	return diagnosis{cause: "namespaces_max"}
}

// cgroupCause says why a controller cannot be used. Empty: any of them.
func cgroupCause(controller string) diagnosis {
	d := diagnosis{controller: controller}
	h, err := cgroup.Detect()
	if err == nil {
		err = h.Prepare()
	}
	if err != nil {
		d.by = err.Error()
		return d
	}
	c := h.Controller(controller)
	d.by = c.Reason
	rootless := os.Geteuid() != 0
	switch {
	case h.Mode == cgroup.ModeNone:
		d.cause = "cgroup_none"
	case strings.Contains(c.Reason, unix.EROFS.Error()):
		d.cause = "cgroup_readonly"
	case disabled(controller):
		d.cause, d.by = "cgroup_disabled", "/proc/cgroups: "+controller+" is not enabled"
	case h.Mode == cgroup.ModeV2 && onV1(controller):
		d.cause, d.by = "cgroup_v1_bound", "/proc/self/cgroup: "+controller+" is on a v1 hierarchy"
	case rootless && h.Mode != cgroup.ModeV2:
		d.cause = "cgroup_v1_user"
	case strings.Contains(c.Reason, unix.EBUSY.Error()):
		d.cause = "cgroup_busy"
	case h.Mode == cgroup.ModeV2 && strings.Contains(c.Reason, "not writable"):
		d.cause = "cgroup_delegation"
	case h.Mode == cgroup.ModeV2 && rootless && underUserManager():
		d.cause = "cgroup_controller"
	case h.Mode == cgroup.ModeV2:
		d.cause = "cgroup_delegation"
	case strings.Contains(c.Reason, "is mounted"), strings.Contains(c.Reason, unix.ENOENT.Error()):
		d.cause = "cgroup_none"
	}
	return d
}

// underUserManager tells whether this process is below a user's systemd.
func underUserManager() bool {
	self, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && strings.Contains(string(self), "/user@")
}

// onV1 tells whether a v1 hierarchy, mounted here or not, has the controller.
func onV1(controller string) bool {
	name := controller
	if name == cgroup.IO {
		name = "blkio"
	}
	for line := range strings.Lines(setting("/proc/self/cgroup")) {
		if f := strings.SplitN(line, ":", 3); len(f) == 3 && slices.Contains(strings.Split(f[1], ","), name) {
			return true
		}
	}
	return false
}

// disabled reads /proc/cgroups: name, hierarchy, groups, enabled.
func disabled(controller string) bool {
	name := controller
	if name == cgroup.IO {
		name = "blkio"
	}
	text, err := os.ReadFile("/proc/cgroups")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == name {
			return f[3] == "0"
		}
	}
	// Linux 6.12 and later may list v1 controllers alone.
	return err != nil && !errors.Is(err, os.ErrNotExist)
}

// setting is the content of a file of one line. Empty: there is none.
func setting(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// status is one field of /proc/self/status.
func status(field string) string {
	for line := range strings.Lines(setting("/proc/self/status")) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func hasAdmin() bool {
	caps, err := strconv.ParseUint(status("CapEff"), 16, 64)
	return err == nil && caps&(1<<unix.CAP_SYS_ADMIN) != 0
}

func filtered() bool { return status("Seccomp") == "2" }

func label() string { return setting("/proc/self/attr/current") }

func confined() bool {
	return setting("/sys/module/apparmor/parameters/enabled") == "Y" && label() != "" && !strings.HasPrefix(label(), "unconfined")
}

// maskedProc are the mounts below /proc, but for the one of binfmt_misc, which
// hides nothing.
func maskedProc() []string {
	var all []string
	for line := range strings.Lines(setting("/proc/self/mountinfo")) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], "/proc/") && f[4] != "/proc/sys/fs/binfmt_misc" {
			all = append(all, f[4])
		}
	}
	return all
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "(unknown)"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Kernel is the release of the running kernel.
func Kernel() string { return release() }
