package main

import (
	"math"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

func applyMemory(b *builder, v string) (err error) {
	b.req.Ask(spec.LimitMemory)
	b.req.Resources.MemoryBytes, err = spec.ParseBytes(v)
	return err
}

func applyDisk(b *builder, v string) (err error) {
	b.req.Ask(spec.LimitDisk)
	b.req.Resources.DiskBytes, err = spec.ParseBytes(v)
	return err
}

func applyMaxOutput(b *builder, v string) (err error) {
	b.req.Resources.MaxOutputBytes, err = spec.ParseBytes(v)
	return err
}

func applyOutputPolicy(b *builder, v string) error {
	b.req.Resources.OutputPolicy = spec.OutputPolicy(v)
	return nil
}

func applyCPUs(b *builder, v string) error {
	cores, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(cores) || math.IsInf(cores, 0) {
		return invalid(v, "is not a number of cores")
	}
	b.req.Resources.CPUQuota = &cores
	return nil
}

func applyCPUTime(b *builder, v string) error {
	ms, err := spec.ParseDuration(v)
	b.req.Resources.CPUTimeMS = &ms
	return err
}

func applyCPUShares(b *builder, v string) error {
	b.req.Ask(spec.LimitCPUShares)
	return parseCount(&b.req.Resources.CPUShares, v)
}

func applyMaxPids(b *builder, v string) error {
	b.req.Ask(spec.LimitPids)
	return parseCount(&b.req.Resources.MaxPids, v)
}

func parseCount(to *int64, v string) error {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return invalid(v, "is not a whole number")
	}
	*to = n
	return nil
}

// applyIO takes KEY=RATE. It copies what a profile gave, which others may share.
func applyIO(b *builder, v string) error {
	key, rate, _ := strings.Cut(v, "=")
	var bounds spec.IOLimits
	if b.req.Resources.IO != nil {
		bounds = *b.req.Resources.IO
	}
	var n int64
	var err error
	switch key {
	case "read", "write":
		n, err = spec.ParseBytes(rate)
	case "read-ops", "write-ops":
		err = parseCount(&n, rate)
	default:
		err = invalid(v, "is not read=SIZE, write=SIZE, read-ops=N or write-ops=N")
	}
	if err != nil {
		return err
	}
	at := map[string]**int64{"read": &bounds.ReadBytesPerSecond, "write": &bounds.WriteBytesPerSecond,
		"read-ops": &bounds.ReadOpsPerSecond, "write-ops": &bounds.WriteOpsPerSecond}[key]
	*at = &n
	b.req.Resources.IO = &bounds
	return nil
}

// applyRlimit takes NAME=SOFT[:HARD]. NAME is as in OCI, in any case, with or
// without RLIMIT_; a value is a number or unlimited; HARD is SOFT by default.
func applyRlimit(b *builder, v string) error {
	name, values, given := strings.Cut(v, "=")
	name = strings.TrimPrefix(strings.ToLower(name), "rlimit_")
	if !given || name == "" {
		return invalid(v, "is not NAME=SOFT or NAME=SOFT:HARD")
	}
	soft, hard, two := strings.Cut(values, ":")
	if !two {
		hard = soft
	}
	var limit spec.Rlimit
	if !parseRlimitValue(&limit.Soft, soft) || !parseRlimitValue(&limit.Hard, hard) {
		return invalid(v, "is not NAME=SOFT or NAME=SOFT:HARD with numbers or unlimited")
	}
	if b.req.Resources.Rlimits == nil {
		b.req.Resources.Rlimits = make(map[string]spec.Rlimit)
	}
	b.req.Resources.Rlimits[name] = limit
	b.req.Ask(spec.RlimitPrefix + name)
	return nil
}

func parseRlimitValue(to *uint64, v string) bool {
	if v == "unlimited" || v == "-1" {
		*to = math.MaxUint64 // RLIM_INFINITY
		return true
	}
	n, err := strconv.ParseUint(v, 10, 64)
	*to = n
	return err == nil
}
