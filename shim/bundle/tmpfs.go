package bundle

import (
	"strconv"

	"github.com/capsule-run/capsule/spec"
)

// The writable tmpfs and their share of disk_bytes, in eighths. /workspace and
// /tmp get what the request says; the others are for sockets, locks, shared
// memory and the like.
//
// The pages of a tmpfs are memory of the control group, and so are its inodes.
// If all of them together could reach the memory limit, filling a disk would
// be answered with an out-of-memory kill instead of ENOSPC. Build therefore
// bounds the sum: sizes, plus what full inode tables cost the kernel, stay
// within three quarters of memory_bytes. When disk_bytes is too large for
// that, all tmpfs shrink in proportion; see DiskBytes.
const (
	eighthsWorkspace = 8
	eighthsTmp       = 8
	eighthsShm       = 2
	eighthsVarTmp    = 1
	eighthsRun       = 1
	eighthsTotal     = eighthsWorkspace + eighthsTmp + eighthsShm + eighthsVarTmp + eighthsRun
)

const (
	// pageBytes is the granularity of a tmpfs size.
	pageBytes = 4096
	// bytesPerInode is the size of a tmpfs for which one inode is granted.
	bytesPerInode = 8192
	// inodeCost is a generous estimate of the kernel memory of an inode with
	// its directory entry, in bytes (shmem_inode_cache, dentry, long name).
	inodeCost = 1280
	// minInodes lets the smallest tmpfs hold a handful of files.
	minInodes = 16
)

// DiskBytes is the size of /workspace and of /tmp, in bytes: disk_bytes of the
// request, or less when memory_bytes is too small for it. At least one page.
func DiskBytes(r *spec.Resources) int64 { return tmpfsBytes(r, eighthsWorkspace) }

// tmpfsBytes is the size of a tmpfs with a share in eighths of disk_bytes.
func tmpfsBytes(r *spec.Resources, eighths int64) int64 {
	// sum*(1 + inodeCost/bytesPerInode) <= memory*3/4, with sum = eighthsTotal*eighth.
	most := r.MemoryBytes / 4 * 3 / (bytesPerInode + inodeCost) * bytesPerInode / eighthsTotal * eighths
	return max(min(r.DiskBytes/8*eighths, most)/pageBytes*pageBytes, pageBytes)
}

// tmpfsOptions are the mount options of a writable tmpfs.
func (b *builder) tmpfsOptions(eighths int64, mode string, more ...string) []string {
	size := tmpfsBytes(&b.req.Resources, eighths)
	options := make([]string, 0, 8)
	options = append(options, "nosuid", "nodev", "mode="+mode,
		"size="+strconv.FormatInt(size, 10),
		"nr_inodes="+strconv.FormatInt(max(size/bytesPerInode, minInodes), 10))
	return append(options, more...)
}
