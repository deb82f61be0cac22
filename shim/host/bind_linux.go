package host

import (
	"slices"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// bind resolves one host path of the request and adds it to the facts.
func (p *prober) bind(field, path, destination string, readonly bool) {
	u := useWritable
	if readonly {
		u = useReadable
	}
	s, f := p.resolve(field, path, u)
	if f != nil {
		p.refuse(f)
		return
	}
	defer unix.Close(s.fd)
	p.facts.Host.Binds = append(p.facts.Host.Binds, bundle.Bind{
		Field: field, Source: s.path, Destination: destination, Kind: kindOf(s.stat.Mode), Readonly: readonly,
		IDMap:    p.mapped(field, path, s, readonly),
		OwnerUID: s.stat.Uid, OwnerGID: s.stat.Gid,
	})
}

// mapped says whether the bind is to be idmapped: as root always, so that the
// payload, whose host ids own nothing, meets the owner's files as its own.
// Rootless, the payload is the caller already.
func (p *prober) mapped(field, path string, s source, readonly bool) bool {
	if p.facts.Host.Rootless {
		return false
	}
	err := p.mappable(&s)
	switch {
	case err == nil:
		return true
	case readonly:
		p.degrade(spec.WallIDMap, path+" is read with the rights of others, not of its owner: its file system cannot be idmapped ("+err.Error()+").")
	case slices.Contains(p.req.Isolation.AllowDegraded, spec.WallIDMap):
		p.degrade(spec.WallIDMap, path+" is written as a host id that owns nothing: its file system cannot be idmapped ("+err.Error()+").")
	default:
		p.refuse(fault.Wrap(fault.IDMapping, "idmap", err).WithField(field).WithPath(path).
			WithHint(`Use a directory on ext4, xfs, btrfs or tmpfs (Linux 6.3), run capsule as the owner of the path instead of root, or list "idmap" in isolation.allow_degraded.`))
	}
	return false
}
