package examine

import (
	"os"
	"path/filepath"
	"strconv"

	"github.com/capsule-run/capsule/shim/doctor"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

// Options are what an examination needs besides the host.
type Options struct {
	// SeccompHelper and Shim are the paths of capsule-seccomp and capsule-shim.
	SeccompHelper, Shim string
	// User is the name of the user, for commands. Empty: its number.
	User string
	// Paths are to be tried as writable paths. Empty: a temporary directory.
	Paths []string
}

// examiner holds what the parts of one examination share.
type examiner struct {
	opts   Options
	state  layout.State
	report *doctor.Examination
	// failed are the walls that cannot be built; the fault says why.
	failed map[string]*fault.Fault
	// without are the walls that trials go without, in order.
	without []string
	trials  int
}

// Run examines the host for the user of this process. Descriptor
// shimapi.LockFD must be free for it. What it makes, executions and
// the state directory for them, is gone when it returns.
func Run(o Options) (*doctor.Examination, error) {
	// Not the usual state directory: nothing may be left there, and a supervisor
	// that sweeps it must not meet directories without a shim. Ids that another
	// state directory has in use may be taken here, by a command that is ours.
	dir, err := os.MkdirTemp("", "capsule-doctor-")
	if err != nil {
		return nil, fault.Wrap(fault.IO, "make a temporary state directory", err)
	}
	defer os.RemoveAll(dir)
	x := &examiner{opts: o, state: layout.State(dir), report: &doctor.Examination{}, failed: map[string]*fault.Fault{}}
	if err := os.Mkdir(x.state.Executions(), 0o700); err != nil {
		return nil, fault.Wrap(fault.IO, "make a temporary state directory", err)
	}
	x.identify()
	restore := x.settleCgroup()
	x.stateDirectory()
	x.namespaces()
	x.sandbox()
	x.paths()
	restore()
	x.report.Judge()
	return x.report, nil
}

// identify names the user: by what the caller calls it, who reads the database.
func (x *examiner) identify() {
	r := x.report
	r.UID = os.Geteuid()
	if r.User = x.opts.User; r.User == "" {
		r.User = strconv.Itoa(r.UID)
	}
}

// add puts one line into the report.
func (x *examiner) add(c doctor.Check) { x.report.Checks = append(x.report.Checks, c) }

// bad puts a line into the report that something is in the way.
func (x *examiner) bad(kind doctor.Kind, name string, state doctor.State, f *fault.Fault) {
	c := doctor.Check{Kind: kind, Name: name, State: state, Code: string(f.Code), Detail: f.Message()}
	d := x.diagnose(f)
	c.Cause, c.By = d.cause, d.by
	if cause := doctor.Lookup(d.cause); cause != nil {
		c.Fix = cause.Commands(x.place(d))
		if c.By == "" {
			c.By = cause.Setting
		}
	} else if hint := f.Remedy(); hint != "" {
		c.Detail += " (" + hint + ")"
	}
	x.add(c)
}

func (x *examiner) place(d diagnosis) doctor.Place {
	return doctor.Place{Shim: x.opts.Shim, User: x.report.User, UID: strconv.Itoa(x.report.UID), Sysctl: d.sysctl, Controller: d.controller}
}

// stateDirectory looks whether the usual state directory can be used, or made.
func (x *examiner) stateDirectory() {
	state, err := layout.Find("")
	if err == nil {
		err = usable(string(state))
	}
	if err == nil {
		x.add(doctor.Check{Kind: doctor.KindStep, Name: "state_directory", State: doctor.Works, Detail: string(state)})
		return
	}
	x.bad(doctor.KindStep, "state_directory", doctor.Blocked, fault.From(err, fault.IO))
}

// usable makes a directory below dir, or below the nearest directory above it
// that exists, as a supervisor would, and takes it away again.
func usable(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && (!info.IsDir() || info.Mode().Perm() != 0o700) {
		return fault.New(fault.NotAuthorised, "check state directory", "it is not a directory of this user with mode 0700").WithPath(dir)
	}
	at := dir
	for os.IsNotExist(err) && at != "/" {
		at = filepath.Dir(at)
		_, err = os.Stat(at)
	}
	probe, err := os.MkdirTemp(at, ".capsule-doctor-")
	if err != nil {
		return fault.Wrap(fault.IO, "use the state directory", err).WithPath(dir)
	}
	return os.Remove(probe)
}
