// Package containerd has no code of its own: its tests run containers under a containerd of
// their own with containerd-shim-capsule-v2 as the runtime. Nothing of the host's
// containerd is touched: ours sees an empty /run.
package containerd
