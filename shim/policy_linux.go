package shim

import (
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/command"
	"github.com/capsule-run/capsule/shim/shimapi"
)

// judge applies the policy of the supervisor to what the command leads to, and
// hides blocked programs. The command of a template never runs.
func (t *translation) judge(p *shimapi.Policy, template bool, binds []bundle.Bind, rootfs string) error {
	tree := command.Tree{Config: t.config, Skeleton: t.skeleton, Rootfs: rootfs}
	for _, b := range binds {
		tree.Brought = append(tree.Brought, b.Destination)
	}
	var err error
	if template {
		t.masked = tree.Masked(p)
	} else if t.masked, err = tree.Judge(p); err != nil {
		return err
	}
	t.config.Linux.MaskedPaths = append(t.config.Linux.MaskedPaths, t.masked...)
	return nil
}
