package bundle

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Portable is a configuration as other OCI runtimes understand it, and the root
// that goes with it.
type Portable struct {
	Config   *specs.Spec
	Skeleton *plan.Skeleton
	// Notes are what the bundle lacks of the execution, or needs of a runtime, in sentences.
	Notes []string
}

// Export makes a portable bundle of one that Build made (docs/decisions/0009). The
// skeleton stands in the annotation unless it is given; kinds are those of the bind
// sources. s is not changed.
func Export(s *specs.Spec, skeleton *plan.Skeleton, kinds map[string]plan.Kind) (*Portable, error) {
	c := *s
	if skeleton == nil {
		skeleton = new(plan.Skeleton)
		if err := json.Unmarshal([]byte(s.Annotations[plan.AnnotationSkeleton]), skeleton); err != nil {
			return nil, fault.Wrap(fault.InvalidBundle, "decode skeleton", err).WithField("annotations." + plan.AnnotationSkeleton)
		}
	}
	p := &Portable{Config: &c, Skeleton: skeleton}
	init := HasInit(s)
	c.Annotations = maps.Clone(s.Annotations)
	delete(c.Annotations, plan.AnnotationSkeleton)
	delete(c.Annotations, plan.AnnotationExecutionID)
	c.Annotations[AnnotationInit] = "false"
	if init {
		c.Annotations[AnnotationInit] = "true"
		p.Notes = append(p.Notes, "Under capsule a reaping process 1 stands in front of the command, and pids.limit has room for it; under other runtimes the command is process 1.")
	}
	// crun up to 1.8 refuses every other version, and takes the options of later ones.
	c.Version = "1.0.2"
	l := *s.Linux
	c.Linux = &l
	l.CgroupsPath = ""
	l.Namespaces = slices.DeleteFunc(slices.Clone(l.Namespaces), func(n specs.LinuxNamespace) bool { return n.Type == specs.TimeNamespace })
	if len(l.Namespaces) < len(s.Linux.Namespaces) {
		p.Notes = append(p.Notes, "The time namespace is left out, which runc knows from 1.2 on; its clocks are the host's in any case, and capsule adds it again.")
	}
	c.Mounts = slices.Clone(s.Mounts)
	for i := range c.Mounts {
		m := &c.Mounts[i]
		p.portableMount(m)
		if IsBind(m) && kinds[m.Source] == plan.KindFile {
			m.Options = single(m.Options)
		}
	}
	return p, nil
}

// portableMount takes the id map off what is only read: runtimes from before 1.2
// of runc and 1.9 of crun have none.
func (p *Portable) portableMount(m *specs.Mount) {
	if len(m.UIDMappings) == 0 && len(m.GIDMappings) == 0 {
		return
	}
	if !readonly(m) {
		p.Notes = append(p.Notes, m.Destination+" is an idmapped mount, so that the command may write it: runc 1.2 or crun 1.9, or later, is needed.")
		return
	}
	m.UIDMappings, m.GIDMappings = nil, nil
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "idmap" || o == "ridmap" })
	p.Notes = append(p.Notes, m.Destination+" is not idmapped here: its files show as nobody's, and only what everybody may read can be read.")
}

// single gives the options of a single file, below which nothing can be mounted:
// crun takes a recursive option to mean a directory.
func single(options []string) []string {
	all := make([]string, len(options))
	for i, o := range options {
		all[i] = o
		switch o {
		case "rbind", "rro", "rrw", "rnosuid", "rnodev", "rnoexec":
			all[i] = o[1:]
		}
	}
	return all
}

// Write makes the bundle in dir, which must not exist or be empty: config.json, the
// root as files, and the given extra files with mode 0600. Others may pass through
// dir to its root, as a runtime must that has left its privilege behind, and see
// nothing else. owner is the host id that root and its group have inside; negative:
// files stay as made.
func (p *Portable) Write(dir string, kinds map[string]plan.Kind, owner int, extra map[string][]byte) error {
	wrap := func(err error) error {
		var f *fault.Fault
		if err == nil || errors.As(err, &f) {
			return err
		}
		return fault.Wrap(fault.IO, "write bundle", err).WithPath(dir)
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		entries, listErr := os.ReadDir(dir)
		if !errors.Is(err, fs.ErrExist) || listErr != nil {
			return wrap(err)
		}
		if len(entries) > 0 {
			return fault.New(fault.InvalidPath, "write bundle", "the directory is not empty").WithPath(dir).WithHint("Name one that does not exist.")
		}
	}
	rootfs := path.Join(dir, RootfsName)
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return wrap(err)
	}
	if err := p.fill(rootfs, kinds, owner); err != nil {
		return wrap(err)
	}
	for name, data := range extra {
		if err := os.WriteFile(path.Join(dir, name), data, 0o600); err != nil {
			return wrap(err)
		}
	}
	return wrap(Write(dir, p.Config))
}

// fill makes the root. os.Root follows no link out of it.
func (p *Portable) fill(rootfs string, kinds map[string]plan.Kind, owner int) error {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return err
	}
	defer root.Close() // what was written is on its way
	made := []string{"."}
	mkdirs := func(dir string) error {
		at := ""
		for name := range strings.SplitSeq(strings.TrimPrefix(path.Clean(dir), "/"), "/") {
			if at = path.Join(at, name); at == "" {
				return nil
			}
			err := root.Mkdir(at, 0o755)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			if err != nil {
				return err
			}
			made = append(made, at)
		}
		return nil
	}
	file := func(name, content string) error {
		if err := mkdirs(path.Dir(name)); err != nil {
			return err
		}
		f, err := root.OpenFile(strings.TrimPrefix(name, "/"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err != nil {
			return err
		}
		made = append(made, strings.TrimPrefix(name, "/"))
		_, err = f.WriteString(content)
		return errors.Join(err, f.Close())
	}
	for _, d := range p.Skeleton.Directories {
		err = errors.Join(err, mkdirs(d))
	}
	for _, l := range p.Skeleton.Symlinks {
		name := strings.TrimPrefix(l.Path, "/")
		err = errors.Join(err, mkdirs(path.Dir(l.Path)), root.Symlink(l.Target, name))
		made = append(made, name)
	}
	for _, f := range p.Skeleton.Files {
		err = errors.Join(err, file(f.Path, f.Content))
	}
	for i := range p.Config.Mounts {
		m := &p.Config.Mounts[i]
		switch {
		case p.below(i): // in a file system that is mounted before
		case IsBind(m) && kinds[m.Source] == plan.KindFile:
			err = errors.Join(err, file(m.Destination, ""))
		default:
			err = errors.Join(err, mkdirs(m.Destination))
		}
	}
	if owner >= 0 {
		for _, name := range made {
			err = errors.Join(err, root.Lchown(name, owner, owner))
		}
	}
	return err
}

// below says whether mount i lies in an earlier one.
func (p *Portable) below(i int) bool {
	return slices.ContainsFunc(p.Config.Mounts[:i], func(m specs.Mount) bool { return within(p.Config.Mounts[i].Destination, m.Destination) })
}
