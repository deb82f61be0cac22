package examine

import (
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/doctor"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// paths tries every path of the options as a writable one.
func (x *examiner) paths() {
	if !x.sandboxRuns() {
		x.add(doctor.Check{Kind: doctor.KindWall, Name: spec.WallIDMap, State: doctor.Blocked, Detail: "not reached: no sandbox can be built"})
		return
	}
	paths := x.opts.Paths
	if len(paths) == 0 {
		dir, err := os.MkdirTemp("", "capsule-doctor-path-")
		if err != nil {
			x.bad(doctor.KindWall, spec.WallIDMap, doctor.Degraded, fault.Wrap(fault.IO, "make a temporary directory", err))
			return
		}
		defer os.Remove(dir)
		paths = []string{dir}
	}
	for _, path := range paths {
		x.path(path)
	}
}

// path tries one. A name of the examiner's own making is told by its parent.
func (x *examiner) path(path string) {
	shown := path
	if len(x.opts.Paths) == 0 {
		shown = os.TempDir()
	}
	quoted, err := json.Marshal(path)
	if err != nil {
		x.bad(doctor.KindWall, spec.WallIDMap, doctor.Degraded, fault.Wrap(fault.InvalidPath, "encode", err))
		return
	}
	out := x.try(`{"command":["true"],"timeout_ms":20000,"isolation":{"writable_paths":[` + string(quoted) + `]}}`)
	if out.Fault == nil {
		detail := shown + " on " + filesystem(path)
		if x.report.Rootless {
			detail = shown + ": needs no idmapping, the payload is this user"
		}
		x.add(doctor.Check{Kind: doctor.KindWall, Name: spec.WallIDMap, State: doctor.Works, Detail: detail})
		return
	}
	x.bad(doctor.KindWall, spec.WallIDMap, doctor.Degraded, fault.From(out.Fault, fault.IDMapping))
}

// sandboxRuns: nothing is in the way of an execution that asks for no limit.
func (x *examiner) sandboxRuns() bool { return len(x.failed) == 0 }

// filesystem names the type of the file system below path, as mounts have it.
func filesystem(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return "an unknown file system"
	}
	for magic, name := range map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse", unix.F2FS_SUPER_MAGIC: "f2fs"} {
		if int64(st.Type) == magic {
			return name
		}
	}
	return "another file system"
}
