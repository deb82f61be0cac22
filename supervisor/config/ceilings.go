package config

import (
	"strconv"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// Ceilings are the most that a request may ask for, in the units of its fields.
// Zero: no ceiling.
type Ceilings struct {
	TimeoutMS, GraceMS                 int64
	MemoryBytes, CPUShares, CPUTimeMS  int64
	MaxOutputBytes, MaxPids, DiskBytes int64
	CPUQuota                           float64
}

// ceiling ties one of them to the field of a request that it bounds.
type ceiling struct {
	name    string // of the key
	pointer string // of the field
	most    func(*Ceilings) *int64
	field   func(*spec.Request) *int64
	// null is a field that may be null, which stands for no limit at all.
	null func(*spec.Request) **int64
	doc  string
}

func ceilings() []ceiling {
	return []ceiling{
		{"timeout_ms", "/timeout_ms", func(c *Ceilings) *int64 { return &c.TimeoutMS }, func(r *spec.Request) *int64 { return &r.TimeoutMS }, nil, ""},
		{"grace_ms", "/grace_ms", func(c *Ceilings) *int64 { return &c.GraceMS }, func(r *spec.Request) *int64 { return &r.GraceMS }, nil, ""},
		{"memory_bytes", "/resources/memory_bytes", func(c *Ceilings) *int64 { return &c.MemoryBytes }, func(r *spec.Request) *int64 { return &r.Resources.MemoryBytes }, nil, ""},
		{"cpu_shares", "/resources/cpu_shares", func(c *Ceilings) *int64 { return &c.CPUShares }, func(r *spec.Request) *int64 { return &r.Resources.CPUShares }, nil, ""},
		{"cpu_time_ms", "/resources/cpu_time_ms", func(c *Ceilings) *int64 { return &c.CPUTimeMS }, nil, func(r *spec.Request) **int64 { return &r.Resources.CPUTimeMS }, " A request without cpu_time_ms gets it."},
		{"max_output_bytes", "/resources/max_output_bytes", func(c *Ceilings) *int64 { return &c.MaxOutputBytes }, func(r *spec.Request) *int64 { return &r.Resources.MaxOutputBytes }, nil, ""},
		{"max_pids", "/resources/max_pids", func(c *Ceilings) *int64 { return &c.MaxPids }, func(r *spec.Request) *int64 { return &r.Resources.MaxPids }, nil, ""},
		{"disk_bytes", "/resources/disk_bytes", func(c *Ceilings) *int64 { return &c.DiskBytes }, func(r *spec.Request) *int64 { return &r.Resources.DiskBytes }, nil, ""},
	}
}

const quotaName, quotaPointer = "cpu_quota", "/resources/cpu_quota"

// ceilingKeys are their keys below prefix.
func ceilingKeys(prefix string, of func(*Config) *Ceilings) []key {
	var all []key
	for _, l := range ceilings() {
		least := max(spec.Least(l.pointer), 1)
		all = append(all, key{Name: prefix + "." + l.name, at: func(c *Config) any { return l.most(of(c)) }, def: 0, unlessZero: least,
			accepts: "0 or at least " + strconv.FormatInt(least, 10),
			doc:     "The most that a request may ask for in `" + l.name + "`; more is E1003. Defaults and profiles are lowered to it." + l.doc + " 0: no ceiling."})
		if l.name == "cpu_shares" {
			all = append(all, key{Name: prefix + "." + quotaName, at: func(c *Config) any { return &of(c).CPUQuota }, accepts: "cores, at least 0.01",
				doc: "The most that a request may ask for in `cpu_quota`; more is E1003. A request without cpu_quota gets it. 0: no ceiling."})
		}
	}
	return all
}

// CeilingsFor are those that bind a caller: the lower of all and of its own.
func (c *Config) CeilingsFor(uid uint32) Ceilings {
	all := c.Limits.Max
	own := c.Limits.Users[uid]
	if own == nil {
		return all
	}
	for _, l := range ceilings() {
		if n := *l.most(own); n > 0 && (*l.most(&all) == 0 || n < *l.most(&all)) {
			*l.most(&all) = n
		}
	}
	if own.CPUQuota > 0 && (all.CPUQuota == 0 || own.CPUQuota < all.CPUQuota) {
		all.CPUQuota = own.CPUQuota
	}
	return all
}

// Lower brings what nobody asked for, defaults and profiles, down to the
// ceilings, and gives what has no limit one.
func (c *Ceilings) Lower(r *spec.Request) {
	for _, l := range ceilings() {
		most := *l.most(c)
		switch {
		case most == 0:
		case l.field != nil:
			*l.field(r) = min(*l.field(r), most)
		case *l.null(r) == nil || **l.null(r) > most:
			*l.null(r) = &most
		}
	}
	if q := r.Resources.CPUQuota; c.CPUQuota > 0 && (q == nil || *q > c.CPUQuota) {
		most := c.CPUQuota
		r.Resources.CPUQuota = &most
	}
}

// Exceeded are the fields of a request above the ceilings, each E1003; rule is
// the dotted name of the section that the ceilings stand in. A null, no limit, is
// not asked for: Lower gives it one.
func (c *Ceilings) Exceeded(r *spec.Request, rule string) fault.List {
	var all fault.List
	over := func(name, pointer, most string) {
		f := fault.New(fault.OutOfRange, "check "+rule+"."+name, "is above the ceiling of "+most).WithField(pointer).
			WithHint("Ask for at most " + most + ".")
		f.Details = map[string]any{"rule": rule + "." + name}
		all = append(all, f)
	}
	for _, l := range ceilings() {
		most := *l.most(c)
		if most == 0 {
			continue
		}
		if l.field != nil && *l.field(r) > most || l.null != nil && *l.null(r) != nil && **l.null(r) > most {
			over(l.name, l.pointer, strconv.FormatInt(most, 10))
		}
	}
	if q := r.Resources.CPUQuota; c.CPUQuota > 0 && q != nil && *q > c.CPUQuota {
		over(quotaName, quotaPointer, strconv.FormatFloat(c.CPUQuota, 'f', -1, 64))
	}
	return all
}
