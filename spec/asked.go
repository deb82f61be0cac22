package spec

import "slices"

// RlimitPrefix and the name of an rlimit are its name in Isolation.Require.
const RlimitPrefix = "rlimit_"

// Ask notes that the caller asked for a limit, by its name in
// Isolation.Require: it must be enforced also when its value is the default.
// The list is copied, since requests that are decoded over one base share it.
// An rlimit that there is not is left to its own problem: one is enough.
func (r *Request) Ask(limit string) {
	if name, ok := cutRlimit(limit); ok && !slices.Contains(rlimitNames, name) {
		return
	}
	if !slices.Contains(r.Isolation.Require, limit) {
		r.Isolation.Require = append(slices.Clone(r.Isolation.Require), limit)
	}
}

// limitOf is the name of the limit that a key of resources sets. Empty: one
// that has no default, so that its being there tells that it was asked for.
func limitOf(key string) string {
	switch key {
	case "memory_bytes":
		return LimitMemory
	case "max_pids":
		return LimitPids
	case "cpu_shares":
		return LimitCPUShares
	case "disk_bytes":
		return LimitDisk
	}
	return ""
}

// Asked tells whether the caller asked for a limit, by its name in
// Isolation.Require: the request requires it, or its value is not the default.
// So do landlock and seccomp when they are required. Limits that every host has (output, timeout) are always asked for. It needs
// a request that was completed.
func (r *Request) Asked(limit string) bool {
	return slices.Contains(r.Isolation.Require, limit) || r.special(limit)
}

// special tells whether a limit has another value than its default.
func (r *Request) special(limit string) bool {
	switch v := &r.Resources; limit {
	case LimitMemory:
		return v.MemoryBytes != defaultOf(limit)
	case LimitPids:
		return v.MaxPids != defaultOf(limit)
	case LimitCPUShares:
		return v.CPUShares != defaultOf(limit)
	case LimitDisk:
		return v.DiskBytes != defaultOf(limit)
	case LimitCPUQuota:
		return v.CPUQuota != nil
	case LimitCPUTime:
		return v.CPUTimeMS != nil
	case LimitIO:
		return v.IO.Bounds()
	case WallLandlock, WallSeccomp:
		return false // nothing of a request sets it
	}
	if name, ok := cutRlimit(limit); ok {
		l, given := r.Resources.Rlimits[name]
		d, has := r.defaultRlimit(name)
		return given && (!has || l != Rlimit{Soft: d, Hard: d})
	}
	return true
}

// defaultOf is the default in the table of resources.
func defaultOf(limit string) int64 {
	for i := range resourcesObject.fields {
		if f := &resourcesObject.fields[i]; limitOf(f.name) == limit {
			n, _ := f.def.(int64)
			return n
		}
	}
	return 0
}

func cutRlimit(limit string) (name string, ok bool) {
	if len(limit) <= len(RlimitPrefix) || limit[:len(RlimitPrefix)] != RlimitPrefix {
		return "", false
	}
	return limit[len(RlimitPrefix):], true
}

// defaultRlimit is what Complete fills in for an rlimit that is not named.
func (r *Request) defaultRlimit(name string) (n uint64, ok bool) {
	switch name {
	case "core":
		return defaultCore, true
	case "nofile":
		return defaultNofile, true
	case "nproc":
		// One for process 1 of the sandbox, which has the payload's user id where
		// only one can be mapped, and one so that the control group refuses first:
		// it counts what it refuses, and the rlimit tells nobody.
		return uint64(max(r.Resources.MaxPids, 0)) + 2, true
	case "fsize":
		return uint64(max(r.Resources.DiskBytes, 0)) + fsizeSlack, true
	}
	return 0, false
}

// askNamed notes what a document names.
func (r *Request) askNamed(keys []string) {
	for _, key := range keys {
		if limit := limitOf(key); limit != "" {
			r.Ask(limit)
		}
		if key == "rlimits" {
			for _, name := range sortedKeys(r.Resources.Rlimits) {
				r.Ask(RlimitPrefix + name)
			}
		}
	}
}
