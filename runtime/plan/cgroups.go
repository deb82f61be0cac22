package plan

import specs "github.com/opencontainers/runtime-spec/specs-go"

// cgroups mounts what the OCI type "cgroup" stands for: the hierarchy of v2, or
// a directory with each of those that the host has. The cgroup namespace, which
// is entered before, makes the sandbox's own group their root; without it the
// kernel refuses the mount.
func (c *compiler) cgroups(dest string, m specs.Mount, o options) error {
	if len(c.facts.Hierarchies) == 0 {
		m.Type = "cgroup2"
		return c.mountFS(dest, m, o)
	}
	shelf := o
	shelf.set &^= mountAttrRdonly
	shelf.data = []string{"mode=755", "size=65536", "nr_inodes=64"}
	disks := c.plan.Disks
	if err := c.mountFS(dest, specs.Mount{Type: "tmpfs", Source: "cgroup"}, shelf); err != nil {
		return err
	}
	c.plan.Disks = disks // it is not for the payload to write
	c.dirs[dest] = true
	for _, h := range c.facts.Hierarchies {
		one := o
		one.data = []string{h.Options}
		if err := c.mountFS(dest+"/"+h.Name, specs.Mount{Type: "cgroup", Source: "cgroup"}, one); err != nil {
			return err
		}
	}
	if o.set&mountAttrRdonly != 0 {
		c.target(dest)
		c.do(OpMountSetattr, dest, reg(RegTarget), str(""), flag(atEmptyPath, "AT_EMPTY_PATH"), raw(mountAttr(mountAttrRdonly, 0, 0), "ro"), imm(mountAttrSize))
		c.closeReg(RegTarget)
	}
	return nil
}
