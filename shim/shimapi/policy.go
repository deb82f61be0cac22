package shimapi

import (
	"path"
	"strings"
)

// Policy is what a supervisor has its shim apply: what only the shim can judge,
// since it knows what names and paths lead to. Without one the built-in rules
// hold.
type Policy struct {
	// Hash identifies the whole policy: SHA-256, hexadecimal.
	Hash string `json:"hash"`
	// Section is where the rules stand in the configuration, for messages.
	Section string `json:"section"`
	// AllowUnconfined permits an execution without a system call filter.
	AllowUnconfined bool `json:"allow_unconfined,omitempty"`
	// AllowProcess permits an execution without any wall.
	AllowProcess bool `json:"allow_process,omitempty"`

	// AnyCommand: Allowed does not matter.
	AnyCommand bool `json:"any_command,omitempty"`
	// Allowed and Blocked are exact basenames or absolute paths inside.
	Allowed []string `json:"allowed,omitempty"`
	Blocked []string `json:"blocked,omitempty"`
	// Matched: an allowed pattern matches the command, whatever Allowed says.
	Matched bool `json:"matched,omitempty"`
	// OwnRootfs: programs of isolation.rootfs count as brought by the caller.
	OwnRootfs bool `json:"own_rootfs,omitempty"`

	// Readable, Writable and Rootfs are host directories below which a request
	// may name paths; none: nowhere. Refused may not be shown, Exempt may
	// although the built-in rules refuse them. Absolute and clean.
	Readable []string `json:"readable,omitempty"`
	Writable []string `json:"writable,omitempty"`
	Rootfs   []string `json:"rootfs,omitempty"`
	Refused  []string `json:"refused,omitempty"`
	Exempt   []string `json:"exempt,omitempty"`
}

// Names says whether a rule, an exact basename or an absolute path, means a path.
func Names(rule, file string) bool {
	if strings.HasPrefix(rule, "/") {
		return rule == file
	}
	return rule == path.Base(file)
}
