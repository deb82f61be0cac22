// Package command finds out which program a command would be inside a sandbox,
// before there is one, and applies a policy to it. It follows names and symbolic
// links through the mounts of an OCI configuration as the kernel will.
package command

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// Tree is the file tree that a sandbox will have.
type Tree struct {
	// Config has the mounts, the command, its environment and its directory.
	Config *specs.Spec
	// Skeleton has the symbolic links of the root; may be nil.
	Skeleton *plan.Skeleton
	// Brought are the places, inside, of what the request mounts.
	Brought []string
	// Rootfs is isolation.rootfs on the host; empty: none.
	Rootfs string
}

// standard are the directories in which blocked basenames are looked for
// besides those of the command's PATH.
var standard = [...]string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/games", "/usr/local/games"}

// found is a program.
type found struct {
	names   []string // every path on the way, the written one first
	inside  string   // without symbolic links
	host    string
	brought bool // a step of the way is the request's
}

const field = "/command"

// Judge applies the policy to the command, E5001, and gives the paths inside
// that are to be masked: what blocked rules lead to.
func (t *Tree) Judge(p *shimapi.Policy) (masked []string, err error) {
	if p.AnyCommand && len(p.Blocked) == 0 {
		return nil, nil
	}
	masked, rules := t.masked(p)
	seen := false
	for _, file := range t.candidates() {
		if t.kernels(file) {
			return nil, refuse(p.Section+".blocked_commands", "a command in /proc cannot be judged")
		}
		f, ok := t.resolve(file)
		if !ok && (p.AnyCommand || !f.brought) {
			continue // what the caller can write may be there a moment later
		}
		seen = true
		if err := t.judge(p, f, rules); err != nil {
			return nil, err
		}
	}
	if !seen && !p.AnyCommand {
		f := fault.Wrap(fault.CommandNotFound, "find "+strconv.Quote(t.Config.Process.Args[0]), unix.ENOENT).WithField(field)
		return nil, f
	}
	return masked, nil
}

// Masked are the blocked programs, as paths inside, whatever the command is.
func (t *Tree) Masked(p *shimapi.Policy) []string {
	masked, _ := t.masked(p)
	return masked
}

// masked also tells the rule that each path is blocked by.
func (t *Tree) masked(p *shimapi.Policy) (masked []string, rules map[string]string) {
	rules = map[string]string{}
	for _, rule := range p.Blocked {
		for _, file := range t.meant(rule) {
			f, ok := t.resolve(file)
			if ok && rules[f.inside] == "" {
				rules[f.inside] = rule
				masked = append(masked, f.inside)
			}
		}
	}
	slices.Sort(masked)
	return masked, rules
}

func (t *Tree) judge(p *shimapi.Policy, f found, masked map[string]string) error {
	if rule := masked[f.inside]; rule != "" {
		return refuse(p.Section+".blocked_commands", strconv.Quote(rule)+" is blocked, and "+f.names[0]+" leads to the same program")
	}
	for _, rule := range p.Blocked {
		for _, name := range append(f.names, f.inside, f.host) {
			if shimapi.Names(rule, name) {
				return refuse(p.Section+".blocked_commands", strconv.Quote(rule)+" is blocked, and "+f.names[0]+" leads to "+name)
			}
		}
	}
	if p.AnyCommand {
		return nil
	}
	if f.brought || p.OwnRootfs && t.Rootfs != "" {
		return refuse(p.Section+".allowed_commands", f.names[0]+" was brought along by the request, which no name allows")
	}
	if p.Matched {
		return nil
	}
	for _, rule := range p.Allowed {
		for _, name := range append(f.names, f.inside) {
			if shimapi.Names(rule, name) {
				return nil
			}
		}
	}
	return refuse(p.Section+".allowed_commands", f.names[0]+" leads to "+f.inside+", which is not among the allowed commands")
}

func refuse(rule, message string) *fault.Fault {
	f := fault.New(fault.CommandRefused, "check "+rule, message).WithField(field).WithHint("Run something else, or ask who keeps the policy.")
	f.Details = map[string]any{"rule": rule}
	return f
}

// meant are the files that a rule may mean.
func (t *Tree) meant(rule string) []string {
	if strings.HasPrefix(rule, "/") {
		return []string{rule}
	}
	var all []string
	for _, dir := range append(standard[:], t.search()...) {
		all = append(all, t.absolute(dir+"/"+rule))
	}
	return all
}

// candidates are the files that will be tried, as plan.Compile lists them.
func (t *Tree) candidates() []string {
	name := t.Config.Process.Args[0]
	if strings.Contains(name, "/") {
		return []string{t.absolute(name)}
	}
	var all []string
	for _, dir := range t.search() {
		all = append(all, t.absolute(dir+"/"+name))
	}
	return all
}

func (t *Tree) search() []string {
	search := "/usr/local/bin:/usr/bin:/bin"
	for _, kv := range t.Config.Process.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	dirs := strings.Split(search, ":")
	for i, dir := range dirs {
		if dir == "" {
			dirs[i] = "."
		}
	}
	return dirs
}

// absolute joins without cleaning: .. after a symbolic link means its target's parent.
func (t *Tree) absolute(file string) string {
	if strings.HasPrefix(file, "/") {
		return file
	}
	return t.Config.Process.Cwd + "/" + file
}

// maxLinks is the kernel's bound (path_resolution(7)).
const maxLinks = 40

// kernels says whether a path goes through the kernel's own files, whose links
// lead anywhere.
func (t *Tree) kernels(file string) bool {
	_, through := t.walk(file)
	return through
}

func (t *Tree) resolve(file string) (found, bool) {
	f, _ := t.walk(file)
	return f, f.host != ""
}

// walk follows a path. host stays empty when nothing is there.
func (t *Tree) walk(file string) (f found, kernels bool) {
	f.names = []string{path.Clean(file)}
	rest := strings.Split(file, "/")
	at, links := "/", 0
	var host string
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		f.brought = f.brought || t.brought(next)
		target, where, state := t.look(next)
		switch state {
		case absent:
			return f, false
		case kernel:
			return f, true
		case link:
			if links++; links > maxLinks {
				return f, false
			}
			rest = append(strings.Split(target, "/"), rest...)
			if strings.HasPrefix(target, "/") {
				at = "/"
			}
			f.names = append(f.names, path.Join(at, path.Join(rest...)))
			continue
		}
		at, host = next, where
	}
	f.inside, f.host = at, host
	return f, false
}

func (t *Tree) brought(inside string) bool {
	return slices.ContainsFunc(t.Brought, func(dir string) bool { return within(inside, dir) })
}

// state is what lies at a place.
type state int

const (
	absent state = iota
	present
	link
	kernel
)

// look tells what lies at a path inside whose parents are no links.
func (t *Tree) look(inside string) (target, host string, s state) {
	if t.Skeleton != nil {
		for _, l := range t.Skeleton.Symlinks {
			if l.Path == inside {
				return l.Target, "", link
			}
		}
	}
	m := t.mountOf(inside)
	if m == nil {
		return "", "", present // a directory of the root itself, or nothing, as what follows shows
	}
	switch {
	case m.Type == "proc" || m.Type == "sysfs":
		return "", "", kernel
	case m.Type != "bind" && !slices.Contains(m.Options, "rbind") && !slices.Contains(m.Options, "bind"):
		return "", "", t.emptyAt(inside)
	}
	host = path.Join(m.Source, strings.TrimPrefix(inside, m.Destination))
	info, err := os.Lstat(host)
	switch {
	case err != nil:
		return "", "", absent
	case info.Mode()&os.ModeSymlink == 0 || inside == m.Destination:
		return "", host, present
	}
	if target, err = os.Readlink(host); err != nil {
		return "", "", absent
	}
	return target, "", link
}

// emptyAt: a new file system holds nothing but what is mounted in it, with the
// directories above.
func (t *Tree) emptyAt(inside string) state {
	for i := range t.Config.Mounts {
		if within(t.Config.Mounts[i].Destination, inside) {
			return present
		}
	}
	return absent
}

// mountOf is the mount that a path lies on; of several the last.
func (t *Tree) mountOf(inside string) *specs.Mount {
	var best *specs.Mount
	for i := range t.Config.Mounts {
		m := &t.Config.Mounts[i]
		if within(inside, m.Destination) && (best == nil || len(m.Destination) >= len(best.Destination)) {
			best = m
		}
	}
	return best
}

func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
