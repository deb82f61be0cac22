package shimapi

import (
	"path"
	"strings"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
)

// Policy is what a supervisor has its shim apply: what only the shim can judge,
// since it knows what names and paths lead to. Without one the built-in rules
// hold.
type Policy struct {
	// Hash identifies the whole policy: SHA-256, hexadecimal.
	Hash string
	// Section is where the rules stand in the configuration, for messages.
	Section string
	// AllowUnconfined permits an execution without a system call filter.
	AllowUnconfined bool
	// AllowProcess permits an execution without any wall.
	AllowProcess bool

	// AnyCommand: Allowed does not matter.
	AnyCommand bool
	// Allowed and Blocked are exact basenames or absolute paths inside.
	Allowed []string
	Blocked []string
	// Matched: an allowed pattern matches the command, whatever Allowed says.
	Matched bool
	// OwnRootfs: programs of isolation.rootfs count as brought by the caller.
	OwnRootfs bool

	// Readable, Writable and Rootfs are host directories below which a request
	// may name paths; none: nowhere. Refused may not be shown, Exempt may
	// although the built-in rules refuse them. Absolute and clean.
	Readable []string
	Writable []string
	Rootfs   []string
	Refused  []string
	Exempt   []string
}

// texts, flags and lists are the fields in the order of their numbers on the wire.
func (p *Policy) texts() []*string { return []*string{&p.Hash, &p.Section} }

func (p *Policy) flags() []*bool {
	return []*bool{&p.AllowUnconfined, &p.AllowProcess, &p.AnyCommand, &p.Matched, &p.OwnRootfs}
}

func (p *Policy) lists() []*[]string {
	return []*[]string{&p.Allowed, &p.Blocked, &p.Readable, &p.Writable, &p.Rootfs, &p.Refused, &p.Exempt}
}

// Field numbers of a policy as a message: the first of each kind.
const (
	policyThere = 1 // so that one that says nothing is longer than none
	policyTexts = 2
	policyFlags = 4
	policyLists = 9
)

// encode is the policy on the wire; none is nothing.
func (p *Policy) encode() wire.Message {
	if p == nil {
		return nil
	}
	m := make(wire.Message, 0, 256).PutBool(policyThere, true)
	for i, text := range p.texts() {
		m = m.PutString(policyTexts+i, *text)
	}
	for i, flag := range p.flags() {
		m = m.PutBool(policyFlags+i, *flag)
	}
	for i, list := range p.lists() {
		for _, text := range *list {
			m = m.Put(policyLists+i, wire.Message(text))
		}
	}
	return m
}

// readPolicy is the reverse of encode.
func readPolicy(m wire.Message) (*Policy, error) {
	if len(m) == 0 {
		return nil, nil
	}
	if err := m.Check(); err != nil {
		return nil, fault.Wrap(fault.InvalidValue, "read bootstrap message", err)
	}
	p := new(Policy)
	for i, text := range p.texts() {
		*text = m.String(policyTexts + i)
	}
	for i, flag := range p.flags() {
		*flag = m.Bool(policyFlags + i)
	}
	for i, list := range p.lists() {
		for text := range m.Each(policyLists + i) {
			*list = append(*list, string(text))
		}
	}
	return p, nil
}

// Names says whether a rule, an exact basename or an absolute path, means a path.
func Names(rule, file string) bool {
	if strings.HasPrefix(rule, "/") {
		return rule == file
	}
	return rule == path.Base(file)
}
