package container

import (
	"context"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container/resources"
	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/spec/fault"
)

// Nested tells whether this process is in a user namespace other than the host's, as under
// a podman of another user than root: it is root there, with no privilege outside.
func Nested() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(text)), []string{"0", "0", "4294967295"})
}

// grouper checks where the control group goes and returns what makes it there. leave is
// called when the container's process is in the group, or there will be none.
func (r *Runtime) grouper(s *specs.Spec, id string) (func() (g *resources.Group, leave func(), err error), error) {
	if !r.Systemd {
		at, err := r.cgroupPath(s, id)
		return func() (*resources.Group, func(), error) {
			made := resources.Make
			if Nested() {
				made = resources.MakePartial
			}
			g, err := made(at, s.Linux.Resources)
			return g, func() {}, err
		}, err
	}
	if Nested() {
		return nil, fault.New(fault.Unsupported, "make cgroup", "systemd's own control groups are not to be had in a user namespace").WithField("systemd-cgroup").
			WithHint("Use the cgroupfs driver: --cgroup-manager=cgroupfs for podman.")
	}
	unit, err := scope.Parse(s.Linux.CgroupsPath, id)
	return func() (*resources.Group, func(), error) {
		ctx, cancel := context.WithTimeout(context.Background(), teardown)
		defer cancel()
		first, err := launch.NewIdle() // systemd makes no scope without a process
		if err != nil {
			return nil, nil, err
		}
		g, err := resources.MakeScope(ctx, unit, first.Pid, s.Linux.Resources)
		if err != nil {
			first.Close()
			return nil, nil, err
		}
		return g, first.Close, nil
	}, err
}

// shared are the namespaces by path that are this process' own, or those of the host's first.
// One that cannot be looked at is told of when it is opened.
func shared(s *specs.Spec) map[specs.LinuxNamespaceType]bool {
	all := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range s.Linux.Namespaces {
		name, ok := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.MountNamespace: "mnt"}[ns.Type]
		if !ok || ns.Path == "" {
			continue
		}
		for _, of := range []string{"self", "1"} {
			var theirs, ours unix.Stat_t
			if unix.Stat(ns.Path, &theirs) == nil && unix.Stat("/proc/"+of+"/ns/"+name, &ours) == nil && theirs.Dev == ours.Dev && theirs.Ino == ours.Ino {
				all[ns.Type] = true
			}
		}
	}
	return all
}
