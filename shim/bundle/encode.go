package bundle

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Encode is the content of config.json: indented JSON in the order of the OCI
// documents, ending in a newline. Text that is not UTF-8 cannot be expressed
// in JSON and is E2009.
//
// It writes the fields that Build uses by hand, because the first use of
// encoding/json on specs.Spec in a process costs a millisecond of reflection. A
// configuration with other fields set goes through encoding/json.
func Encode(s *specs.Spec) ([]byte, error) { return encode(s, "") }

// encode is Encode with the JSON of linux.seccomp in place of the object, which
// is long and stands ready. Empty: the object is encoded.
func encode(s *specs.Spec, filter string) ([]byte, error) {
	if !plain(s) {
		var buf bytes.Buffer
		e := json.NewEncoder(&buf)
		e.SetEscapeHTML(false)
		e.SetIndent("", "\t")
		if err := e.Encode(s); err != nil {
			return nil, fault.Wrap(fault.InvalidBundle, "encode config.json", err)
		}
		return buf.Bytes(), nil
	}
	w := writer{buf: make([]byte, 0, 12<<10+len(filter)), pretty: true, filter: filter}
	w.spec(s)
	if w.invalid {
		return nil, fault.Wrap(fault.InvalidBundle, "encode config.json", errors.New("text that is not UTF-8"))
	}
	return append(w.buf, '\n'), nil
}

// encodeSkeleton is the value of plan.AnnotationSkeleton.
func encodeSkeleton(sk *plan.Skeleton) string {
	w := writer{buf: make([]byte, 0, 2048)}
	w.open('{')
	w.intOmit("size_bytes", sk.SizeBytes)
	w.intOmit("inodes", sk.Inodes)
	w.stringsOmit("directories", sk.Directories)
	if len(sk.Symlinks) > 0 {
		w.key("symlinks").open('[')
		for _, l := range sk.Symlinks {
			w.next().open('{').key("path").str(l.Path).key("target").str(l.Target).close('}')
		}
		w.close(']')
	}
	if len(sk.Files) > 0 {
		w.key("files").open('[')
		for _, f := range sk.Files {
			w.next().open('{').key("path").str(f.Path).key("content").str(f.Content).close('}')
		}
		w.close(']')
	}
	w.close('}')
	return string(w.buf)
}

func (w *writer) spec(s *specs.Spec) {
	w.open('{').key("ociVersion").str(s.Version)
	if s.Process != nil {
		w.process(s.Process)
	}
	if s.Root != nil {
		w.key("root").open('{').key("path").str(s.Root.Path)
		w.boolOmit("readonly", s.Root.Readonly).close('}')
	}
	w.strOmit("hostname", s.Hostname).strOmit("domainname", s.Domainname)
	if len(s.Mounts) > 0 {
		w.key("mounts").open('[')
		for i := range s.Mounts {
			w.mount(&s.Mounts[i])
		}
		w.close(']')
	}
	w.mapOmit("annotations", s.Annotations)
	if s.Linux != nil {
		w.linux(s.Linux)
	}
	w.close('}')
}

func (w *writer) process(p *specs.Process) {
	w.key("process").open('{')
	w.boolOmit("terminal", p.Terminal)
	w.key("user").open('{').key("uid").uint(uint64(p.User.UID)).key("gid").uint(uint64(p.User.GID))
	if p.User.Umask != nil {
		w.key("umask").uint(uint64(*p.User.Umask))
	}
	w.close('}')
	w.stringsOmit("args", p.Args).stringsOmit("env", p.Env)
	w.key("cwd").str(p.Cwd)
	if c := p.Capabilities; c != nil {
		// Unlike encoding/json, which leaves empty sets out: they are to be seen.
		w.key("capabilities").open('{')
		w.strings("bounding", c.Bounding).strings("effective", c.Effective).strings("inheritable", c.Inheritable)
		w.strings("permitted", c.Permitted).strings("ambient", c.Ambient)
		w.close('}')
	}
	if len(p.Rlimits) > 0 {
		w.key("rlimits").open('[')
		for _, l := range p.Rlimits {
			w.next().inline('{').key("type").str(l.Type).key("hard").uint(l.Hard).key("soft").uint(l.Soft).close('}')
		}
		w.close(']')
	}
	w.boolOmit("noNewPrivileges", p.NoNewPrivileges)
	w.close('}')
}

func (w *writer) mount(m *specs.Mount) {
	w.next().open('{').key("destination").str(m.Destination)
	w.strOmit("type", m.Type).strOmit("source", m.Source).stringsOmit("options", m.Options)
	w.mappings("uidMappings", m.UIDMappings).mappings("gidMappings", m.GIDMappings)
	w.close('}')
}

func (w *writer) mappings(key string, maps []specs.LinuxIDMapping) *writer {
	if len(maps) == 0 {
		return w
	}
	w.key(key).open('[')
	for _, m := range maps {
		w.next().inline('{').key("containerID").uint(uint64(m.ContainerID))
		w.key("hostID").uint(uint64(m.HostID)).key("size").uint(uint64(m.Size)).close('}')
	}
	return w.close(']')
}

func (w *writer) linux(l *specs.Linux) {
	w.key("linux").open('{')
	w.mappings("uidMappings", l.UIDMappings).mappings("gidMappings", l.GIDMappings)
	if l.Resources != nil {
		w.resources(l.Resources)
	}
	w.strOmit("cgroupsPath", l.CgroupsPath)
	if len(l.Namespaces) > 0 {
		w.key("namespaces").open('[')
		for _, ns := range l.Namespaces {
			w.next().inline('{').key("type").str(string(ns.Type)).strOmit("path", ns.Path).close('}')
		}
		w.close(']')
	}
	switch {
	case w.filter != "":
		w.key("seccomp")
		w.buf = append(w.buf, w.filter...)
	case l.Seccomp != nil:
		w.seccomp(l.Seccomp)
	}
	w.strOmit("rootfsPropagation", l.RootfsPropagation)
	w.stringsOmit("maskedPaths", l.MaskedPaths).stringsOmit("readonlyPaths", l.ReadonlyPaths)
	w.close('}')
}

func (w *writer) resources(r *specs.LinuxResources) {
	w.key("resources").open('{')
	if m := r.Memory; m != nil {
		w.key("memory").open('{').intPtr("limit", m.Limit).intPtr("swap", m.Swap).close('}')
	}
	if c := r.CPU; c != nil {
		w.key("cpu").open('{').uintPtr("shares", c.Shares).intPtr("quota", c.Quota).uintPtr("period", c.Period).close('}')
	}
	if p := r.Pids; p != nil {
		w.key("pids").open('{').intPtr("limit", p.Limit).close('}')
	}
	w.close('}')
}

func (w *writer) seccomp(s *specs.LinuxSeccomp) {
	w.key("seccomp").open('{').key("defaultAction").str(string(s.DefaultAction))
	w.errno("defaultErrnoRet", s.DefaultErrnoRet)
	stringsAs(w, "architectures", s.Architectures)
	stringsAs(w, "flags", s.Flags)
	if len(s.Syscalls) > 0 {
		w.key("syscalls").open('[')
		for i := range s.Syscalls {
			w.syscall(&s.Syscalls[i])
		}
		w.close(']')
	}
	w.close('}')
}

func (w *writer) syscall(c *specs.LinuxSyscall) {
	w.next().open('{').strings("names", c.Names).key("action").str(string(c.Action))
	w.errno("errnoRet", c.ErrnoRet)
	if len(c.Args) > 0 {
		w.key("args").open('[')
		for _, a := range c.Args {
			w.next().inline('{').key("index").uint(uint64(a.Index)).key("value").uint(a.Value)
			if a.ValueTwo != 0 {
				w.key("valueTwo").uint(a.ValueTwo)
			}
			w.key("op").str(string(a.Op)).close('}')
		}
		w.close(']')
	}
	w.close('}')
}

func (w *writer) errno(key string, n *uint) {
	if n != nil {
		w.key(key).uint(uint64(*n))
	}
}
