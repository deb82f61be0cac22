package shim

import (
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/command"
	"github.com/capsule-run/capsule/shim/shimapi"
)

// judge applies the policy of the supervisor to what the command leads to, and
// hides blocked programs.
func (t *translation) judge(p *shimapi.Policy, binds []bundle.Bind, rootfs string) error {
	tree := command.Tree{Config: t.config, Skeleton: t.skeleton, Rootfs: rootfs}
	for _, b := range binds {
		tree.Brought = append(tree.Brought, b.Destination)
	}
	var err error
	if t.masked, err = tree.Judge(p); err != nil {
		return err
	}
	t.config.Linux.MaskedPaths = append(t.config.Linux.MaskedPaths, t.masked...)
	return nil
}
