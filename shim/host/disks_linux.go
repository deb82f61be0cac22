package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec/fault"
)

// disks finds what resources.io bounds and what escapes it. Every disk of the
// host is bounded, whichever of them a path is on: file systems that span
// several, sit on others or hide theirs are covered without being understood.
func (p *prober) disks() error {
	if !p.req.Resources.IO.Bounds() {
		return nil
	}
	var err error
	if p.facts.Host.Disks, err = blockDevices("/sys/block"); err != nil {
		return fault.Wrap(fault.IO, "list the disks", err).WithPath("/sys/block")
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fault.Wrap(fault.IO, "read mounts", err).WithPath("/proc/self/mountinfo")
	}
	p.facts.IO = reachOf(parseMounts(string(table)), p.shown(), func(path string) bool { return KindAt(path) == plan.KindDir })
	return nil
}

// blockDevices are the disks of the host that have a size. Bounds are set on
// whole disks; the kernel refuses them on partitions.
func blockDevices(dir string) ([]bundle.Device, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var list []bundle.Device
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		// The paths below a multipath disk are hidden and have no bounds.
		if attribute(at+"/size") == "0" || attribute(at+"/hidden") == "1" {
			continue
		}
		major, minor, _ := strings.Cut(attribute(at+"/dev"), ":")
		a, err1 := strconv.ParseInt(major, 10, 64)
		b, err2 := strconv.ParseInt(minor, 10, 64)
		if err1 == nil && err2 == nil {
			list = append(list, bundle.Device{Major: a, Minor: b})
		}
	}
	return list, nil
}

func attribute(path string) string {
	text, _ := os.ReadFile(path) // a disk that has just gone has no bounds
	return strings.TrimSpace(string(text))
}

func (p *prober) shown() []shownPath {
	h := &p.facts.Host
	var list []shownPath
	for _, entries := range [][]bundle.Entry{h.System, h.Etc} {
		for _, e := range entries {
			if e.Kind != bundle.Symlink {
				list = append(list, shownPath{e.Path, false})
			}
		}
	}
	if h.Rootfs != "" {
		list = append(list, shownPath{h.Rootfs, false})
	}
	for _, b := range h.Binds {
		list = append(list, shownPath{b.Source, !b.Readonly})
	}
	return list
}
