package fault

// Code identifies a kind of fault. A number is never reused; new ones may be added.
type Code string

// The codes, by family: 1 the request, 2 the set-up of the sandbox, 3 the
// run, 4 limits, 5 policy, 6 capsule's own plumbing.
const (
	InvalidValue      Code = "E1001"
	MissingField      Code = "E1002"
	OutOfRange        Code = "E1003"
	UnknownProfile    Code = "E1004"
	UnknownField      Code = "E1005"
	InvalidPath       Code = "E1006"
	ConfigFile        Code = "E1007"
	Namespace         Code = "E2001"
	Cgroup            Code = "E2002"
	Seccomp           Code = "E2003"
	Filesystem        Code = "E2004"
	Capabilities      Code = "E2005"
	IDMapping         Code = "E2006"
	Network           Code = "E2007"
	Unsupported       Code = "E2008"
	InvalidBundle     Code = "E2009"
	Timeout           Code = "E3001"
	KilledBySignal    Code = "E3002"
	CommandNotFound   Code = "E3003"
	OutputCapture     Code = "E3004"
	MonitorFailed     Code = "E3005"
	OutputLimit       Code = "E3006"
	Cancelled         Code = "E3007"
	SetupTimeout      Code = "E3008"
	LimitUnavailable  Code = "E4001"
	OutOfMemory       Code = "E4002"
	ProcessLimit      Code = "E4003"
	DiskLimit         Code = "E4004"
	CPUTimeLimit      Code = "E4005"
	TooManyExecutions Code = "E4006"
	CommandRefused    Code = "E5001"
	PathRefused       Code = "E5002"
	SyscallRefused    Code = "E5003"
	NotAuthorised     Code = "E5004"
	IO                Code = "E6001"
	JSONSyntax        Code = "E6002"
	SystemCall        Code = "E6003"
	Unreachable       Code = "E6004"
	ShimLost          Code = "E6005"
	StateUnreadable   Code = "E6006"
	NotFound          Code = "E6007"
)

// Info is what the table knows of a code.
type Info struct {
	Code Code
	// Name is the short term that api documents use.
	Name string
	// Meaning is one or two full sentences for docs/errors.md.
	Meaning string
	// Hint is the remedy that is shown when the fault brings none of its own.
	Hint string
}

// Table lists every code in numeric order.
func Table() []Info { return table }

// Info looks the code up. An unknown code yields an Info with that code and
// the name "unknown".
func (c Code) Info() Info {
	for i := range table {
		if table[i].Code == c {
			return table[i]
		}
	}
	return Info{Code: c, Name: "unknown"}
}
