package doctor

import "strings"

// Cause is one reason why a host does not do what capsule wants.
type Cause struct {
	// ID is the stable name in reports.
	ID string
	// Setting is what has to change: a sysctl, a profile, a mount option, a
	// property of a unit.
	Setting string
	// Host says on which hosts it is met.
	Host string
	// Effect is what executions meet.
	Effect string
	// Fix are shell commands. {SHIM}, {USER}, {UID}, {SYSCTL} and {CONTROLLER}
	// stand for what was found.
	Fix []string
}

// Place holds what the placeholders of Cause.Fix stand for. Empty: the
// placeholder stays.
type Place struct {
	Shim, User, UID, Sysctl, Controller string
}

// Commands are the cause's commands for one place.
func (c *Cause) Commands(p Place) []string {
	var pairs []string
	for _, v := range [...][2]string{{"{SHIM}", p.Shim}, {"{USER}", p.User}, {"{UID}", p.UID}, {"{SYSCTL}", p.Sysctl}, {"{CONTROLLER}", p.Controller}} {
		if v[1] != "" {
			pairs = append(pairs, v[0], v[1])
		}
	}
	r := strings.NewReplacer(pairs...)
	out := make([]string, len(c.Fix))
	for i, line := range c.Fix {
		out[i] = r.Replace(line)
	}
	return out
}

// Lookup finds a cause. Nil: there is none of that name.
func Lookup(id string) *Cause {
	for i := range causes {
		if causes[i].ID == id {
			c := causes[i]
			return &c
		}
	}
	return nil
}

// Causes lists all of them in the order of the documents. The caller owns the list.
func Causes() []Cause { return append([]Cause(nil), causes...) }

// AppArmorProfile is the profile that lets the capsule-shim at path make user
// namespaces where kernel.apparmor_restrict_unprivileged_userns is set.
// cmd/capsule-shim/apparmor holds it for the usual places.
func AppArmorProfile(path string) string {
	return `# Lets capsule-shim make user namespaces for users other than root where
# kernel.apparmor_restrict_unprivileged_userns = 1 (Ubuntu 23.10 and later).
# It confines nothing: capsule builds the walls of a sandbox itself.
abi <abi/4.0>,
include <tunables/global>

profile capsule-shim ` + path + ` flags=(unconfined) {
  userns,

  include if exists <local/capsule-shim>
}
`
}

// ProfilePlaces is the path of the profile that is shipped.
const ProfilePlaces = "/{usr/,usr/local/,opt/capsule/,home/*/.local/}{bin,lib/capsule,libexec/capsule}/capsule-shim"

// causes is read-only.
var causes = []Cause{
	{"namespaces_max", "sysctl user.max_*_namespaces", "hardened hosts, and containers whose engine lowers it",
		"E2001: clone3 answers ENOSPC",
		[]string{"sudo sysctl -w {SYSCTL}=15000", "echo '{SYSCTL} = 15000' | sudo tee /etc/sysctl.d/90-capsule.conf"}},
	{"userns_clone", "sysctl kernel.unprivileged_userns_clone", "Debian 10 and older, Arch linux-hardened; users other than root",
		"E2001: clone3 answers EPERM",
		[]string{"sudo sysctl -w kernel.unprivileged_userns_clone=1", "echo 'kernel.unprivileged_userns_clone = 1' | sudo tee /etc/sysctl.d/90-capsule.conf"}},
	{"apparmor_userns", "sysctl kernel.apparmor_restrict_unprivileged_userns, without an AppArmor profile for capsule-shim", "Ubuntu 23.10 and later; users other than root",
		"E2001 at clone3, E2006 at the id maps or E2004 at the first mount, with EACCES or EPERM",
		[]string{"capsulectl doctor --apparmor-profile | sudo tee /etc/apparmor.d/capsule-shim", "sudo apparmor_parser -r /etc/apparmor.d/capsule-shim"}},
	{"apparmor_confined", "the AppArmor profile that confines capsule", "containers under Docker's or LXC's default profile, confined services",
		"E2004: mount steps answer EACCES", []string{"docker run --security-opt apparmor=unconfined ..."}},
	{"selinux", "the SELinux policy", "Fedora and RHEL, for confined users, services and containers",
		"E2001 or E2004 with EACCES", []string{"sudo ausearch -m AVC -ts recent -c capsule-shim", "sudo ausearch -m AVC -ts recent -c capsule-shim --raw | audit2allow -M capsule && sudo semodule -i capsule.pp"}},
	{"container_seccomp", "the system call filter of the container or service around capsule", "containers under Docker's, Podman's or Kubernetes' default filter; units with SystemCallFilter= or RestrictNamespaces=",
		"E2001: clone3 answers EPERM or ENOSYS", []string{"docker run --security-opt seccomp=unconfined ..."}},
	{"container_capabilities", "CAP_SYS_ADMIN in the bounding set of root", "root in a container that is not privileged, units with CapabilityBoundingSet=",
		"E2001, E2004 or E2006 with EPERM", []string{"docker run --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined ..."}},
	{"proc_masked", "mounts over parts of /proc", "unprivileged containers: the kernel mounts a fresh /proc in a user namespace only where the present one is fully visible",
		"E2004: mount /proc answers EPERM", []string{"docker run --security-opt systempaths=unconfined ...", "podman run --security-opt unmask=ALL ..."}},
	{"chroot", "a root directory that is not the root of a mount", "chroot(2) environments",
		"E2001: clone3 answers EPERM, for root too", []string{"sudo unshare --mount sh -c 'mount --bind ROOT ROOT && cd ROOT && pivot_root . . && umount -l . && exec capsulectl ...'"}},
	{"processes_max", "RLIMIT_NPROC or pids.max around capsule", "units with LimitNPROC= or TasksMax=, shells after ulimit -u",
		"E2001: clone3 answers EAGAIN", []string{"ulimit -u unlimited", "sudo systemctl set-property user-{UID}.slice TasksMax=infinity"}},
	{"kernel_old", "the kernel", "before Linux 5.12, or built without what the line names; gVisor",
		"E2001, E2004 or E2008 with ENOSYS or EINVAL", []string{"uname -r  # 5.12 is needed, 6.1 or later recommended"}},
	{"idmap_unsupported", "the file system of the path", "overlayfs before Linux 6.9, tmpfs before 6.3, NFS, FUSE; root only",
		"E2006 for writable paths, unless idmap is in isolation.allow_degraded; read-only paths are read with the rights of others",
		[]string{"findmnt -T PATH  # use a directory on ext4, xfs, btrfs, or tmpfs with Linux 6.3"}},
	{"seccomp_helper", "capsule-seccomp beside capsule-shim", "incomplete installations, builds without libseccomp",
		"E2003", []string{"ls -l $(dirname {SHIM})/capsule-seccomp  # install it from the same build"}},
	{"cgroup_none", "no control groups are mounted", "minimal containers, chroots, initramfs",
		"limits of memory, pids and cpu: E4001 when asked for, absent otherwise", []string{"sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"}},
	{"cgroup_readonly", "/sys/fs/cgroup is mounted read-only", "containers",
		"as without control groups", []string{"docker run --cgroupns=private --privileged ...", "podman run --security-opt unmask=/sys/fs/cgroup ..."}},
	{"cgroup_delegation", "Delegate= of the unit that capsule runs in", "users other than root on cgroup v2, services without Delegate=yes",
		"as without control groups", []string{"systemd-run --user --scope -p Delegate=yes capsulectl run ...", "sudo loginctl enable-linger {USER}  # when there is no user session"}},
	{"cgroup_controller", "Delegate= of user@.service does not have the controller", "users other than root on cgroup v2: systemd hands down memory and pids alone before 252",
		"the limits of that controller: E4001 when asked for, absent otherwise",
		[]string{"printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo install -D -m 644 /dev/stdin /etc/systemd/system/user@.service.d/delegate.conf", "sudo systemctl daemon-reload && sudo systemctl restart user@{UID}.service"}},
	{"cgroup_v1_user", "control groups v1, which cannot be delegated safely", "users other than root on v1 and hybrid hosts",
		"as without control groups", []string{"sudo grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1 || echo 'add systemd.unified_cgroup_hierarchy=1 to GRUB_CMDLINE_LINUX in /etc/default/grub and run update-grub'", "sudo reboot  # or run capsuled as root and let this user ask it"}},
	{"cgroup_v1_bound", "a v1 hierarchy that has the controller, which v2 then has not", "hosts that mount both, when only v2 is seen from where capsule runs",
		"the limits of that controller: E4001 when asked for, absent otherwise",
		[]string{"sudo umount /sys/fs/cgroup/{CONTROLLER}  # on the host, or boot with cgroup_no_v1=all"}},
	{"cgroup_disabled", "the controller is disabled at boot, or not built", "Raspberry Pi OS, kernels with cgroup_disable=",
		"the limits of that controller: E4001 when asked for, absent otherwise",
		[]string{"sudo sed -i 's/$/ cgroup_enable={CONTROLLER}/' /boot/firmware/cmdline.txt  # or GRUB_CMDLINE_LINUX", "sudo reboot"}},
	{"cgroup_busy", "processes in the cgroup that should give controllers to its children", "services whose processes capsule may not move",
		"the limits of v2: E4001 when asked for, absent otherwise", []string{"systemctl show -p Delegate,ControlGroup $(ps -o unit= $$)  # set Delegate=yes and DelegateSubgroup=main"}},
	{"cgroup_max", "cgroup.max.descendants or cgroup.max.depth of a cgroup around capsule", "containers and services of engines that bound them",
		"E2002: mkdir answers EAGAIN", []string{"grep -H . $(sed -n 's|^0::|/sys/fs/cgroup|p' /proc/self/cgroup)/cgroup.max.*  # raise what is not max, here or above"}},
	{"io_elsewhere", "the file system of a path that is shown, or that no disk is below /sys/block", "diskless hosts, containers and machines whose root is 9p, virtiofs, NFS, FUSE or ZFS",
		"io: E4001 when asked for", []string{"findmnt -T PATH  # show the sandbox a directory or a rootfs on a local disk"}},
	{"swap_accounting", "swap accounting of control groups v1", "Debian and Ubuntu hosts on v1",
		"memory is degraded: what is swapped out is not counted", []string{"sudo swapoff -a", "# or add swapaccount=1 to the kernel's command line"}},
	{"state_directory", "the state directory", "users without XDG_RUNTIME_DIR, directories of somebody else",
		"E6001 or E5004", []string{"export CAPSULE_STATE=$HOME/.local/state/capsule-run"}},
	{"shim_unreachable", "the modes of capsule-shim and the directories above it", "programs installed in somebody's home",
		"E6004", []string{"sudo install -m 755 {SHIM} $(dirname {SHIM})/capsule-seccomp $(dirname {SHIM})/capsulectl /usr/local/bin/"}},
	{"no_commands", "the host's programs", "images without a shell or coreutils",
		"E3003 for commands that the host does not have", []string{"capsulectl run --rootfs DIR ..."}},
}
