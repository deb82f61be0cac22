package doctor

// State says what a host does about one wall or limit.
type State string

// The states, the best first.
const (
	// Works: executions get it, and the kernel confirms it.
	Works State = "works"
	// Degraded: executions run without it and their enforcement says so; one
	// that asks for it is refused.
	Degraded State = "degraded"
	// Blocked: no execution can run because of it.
	Blocked State = "blocked"
)

// Kind says what a check is about.
type Kind string

// The kinds.
const (
	KindStep  Kind = "step"  // a part of the set-up that is neither of the others
	KindWall  Kind = "wall"  // named as in Enforcement.Walls
	KindLimit Kind = "limit" // named as in Enforcement.Limits
)

// Check is one line of the report.
type Check struct {
	Kind  Kind   `json:"kind"`
	Name  string `json:"name"`
	State State  `json:"state"`
	// Cause is a key of Causes. Empty: it works, or nobody knows why not.
	Cause string `json:"cause,omitempty"`
	// By is the setting that is in the way, as found: "user.max_user_namespaces = 0".
	By string `json:"by,omitempty"`
	// Detail is what capsule and the kernel said.
	Detail string `json:"detail,omitempty"`
	// Code is the code that a request which asks for it gets, E4001. Empty: it works.
	Code string `json:"code,omitempty"`
	// Fix are the commands that mend it, in order, to be given to a shell.
	Fix []string `json:"fix,omitempty"`
}

// Examination is what one user of the host can have.
type Examination struct {
	// User is the name, or the number where there is none, and UID the number.
	User string `json:"user"`
	UID  int    `json:"uid"`
	// Rootless: only the user's own ids can be mapped.
	Rootless bool `json:"rootless"`
	// CgroupMode is how control groups are mounted (none, v1, v2, hybrid), and
	// Cgroup the line of /proc/self/cgroup for the v2 tree, or else the first.
	CgroupMode string  `json:"cgroup_mode"`
	Cgroup     string  `json:"cgroup"`
	State      State   `json:"state"`
	Checks     []Check `json:"checks"`
	// Left is what could not be taken away again. Empty: nothing.
	Left string `json:"left,omitempty"`
}

// Judge sets the state of the examination to its worst check.
func (x *Examination) Judge() {
	x.State = Works
	for _, c := range x.Checks {
		x.State = Worse(x.State, c.State)
	}
}

// Report is the document of `capsulectl doctor -o json`.
type Report struct {
	State  State  `json:"state"`
	Kernel string `json:"kernel"`
	// Shim is the capsule-shim that was examined with.
	Shim  string        `json:"shim"`
	Users []Examination `json:"users"`
}

// Worse is the worse of two states.
func Worse(a, b State) State {
	for _, s := range [...]State{Blocked, Degraded} {
		if a == s || b == s {
			return s
		}
	}
	return Works
}

// ExitStatus is what capsulectl exits with: 0 everything works, 1 something is
// degraded, 2 something is blocked.
func ExitStatus(s State) int {
	switch s {
	case Blocked:
		return 2
	case Degraded:
		return 1
	}
	return 0
}
