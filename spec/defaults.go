package spec

import "slices"

// Default gives a request with every default filled in and no command, which
// therefore does not validate yet. The rlimits that depend on other fields are
// left to Complete. The caller owns the result.
func Default() *Request {
	r := new(Request)
	setDefaults(&requestObject, r)
	return r
}

// setDefaults fills owner as its table says. Lists and maps become empty, not
// nil, so that they are encoded as such by any encoder.
func setDefaults(o *object, into any) {
	for i := range o.fields {
		f := &o.fields[i]
		ref := f.at(into)
		if s := text(ref); s != nil {
			*s, _ = f.def.(string)
			continue
		}
		if nested, ok := owner(ref, false); ok {
			if nested != nil {
				setDefaults(f.object, nested)
			}
			continue
		}
		switch p := ref.(type) {
		case *int64:
			*p, _ = f.def.(int64)
		case *bool:
			*p, _ = f.def.(bool)
		case *Seccomp:
			p.Name, _ = f.def.(string)
		case *[]string:
			*p = []string{}
		case *[]BindMount:
			*p = []BindMount{}
		case *map[string]string:
			*p = map[string]string{}
		case *map[string]Rlimit:
			*p = map[string]Rlimit{}
		}
	}
}

// The defaults of rlimits that depend on nothing.
const (
	defaultCore   = 0
	defaultNofile = 1024
)

// Complete fills in the rlimits that the request does not name: core 0,
// nofile 1024, nproc max_pids + 2 and fsize disk_bytes + 64 KiB, and takes out
// of isolation.require what differs from its default anyway. Call it after
// everything else is set; a second call changes nothing.
//
// Nproc is one more than max_pids because capsule's init counts among the
// processes of the user (setrlimit(2), RLIMIT_NPROC): with it the limit of the
// control group strikes first. That one is counted by the kernel as an event
// and shows in the verdict; an EAGAIN out of the rlimit would show nowhere.
func (r *Request) Complete() {
	limits := make(map[string]Rlimit, len(r.Resources.Rlimits)+4)
	for _, name := range [...]string{"core", "nofile", "nproc", "fsize"} {
		n, _ := r.defaultRlimit(name)
		limits[name] = Rlimit{Soft: n, Hard: n}
	}
	for name, l := range r.Resources.Rlimits {
		limits[name] = l
	}
	r.Resources.Rlimits = limits
	// What the value tells need not be said twice.
	r.Isolation.Require = slices.DeleteFunc(slices.Clone(r.Isolation.Require), r.special)
}

// fsizeSlack is what the default fsize exceeds disk_bytes by: a file that fills
// its file system gets ENOSPC, which programs handle, before SIGXFSZ, which
// kills them.
const fsizeSlack = 64 << 10
