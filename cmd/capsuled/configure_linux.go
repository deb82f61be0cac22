package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/config"
	"github.com/capsule-run/capsule/supervisor/history"
)

// configure reads the configuration and takes over what flags do not say.
func (o *options) configure() error {
	files, err := config.Find(o.file, os.LookupEnv)
	if err != nil {
		return err
	}
	c, err := config.Load(files, os.LookupEnv)
	if err != nil {
		return err
	}
	next := options{gid: noGroup, args: o.args, file: o.file, config: c,
		address: c.Daemon.Address, state: c.State.Directory, format: c.Daemon.LogFormat, audit: c.Security.AuditLog,
		interval:   time.Duration(c.State.SweepIntervalMS) * time.Millisecond,
		hostBudget: c.Daemon.MemoryBudgetBytes < 0,
		admission:  admission.Limits{MaxConcurrent: int(c.Daemon.MaxConcurrent), MaxQueued: int(c.Daemon.MaxQueued), MemoryBudget: max(c.Daemon.MemoryBudgetBytes, 0)},
		pool:       supervisor.PoolLimits{Size: int(c.Pool.Size), Idle: time.Duration(c.Pool.IdleSeconds) * time.Second},
		history: history.Limits{Age: time.Duration(c.State.HistoryAgeSeconds) * time.Second, Count: int(c.State.HistoryCount),
			Bytes: c.State.HistoryBytes, OutputBytes: c.State.HistoryOutputBytes,
			Owners: history.Owners{Count: int(c.Limits.Owner.HistoryCount), Bytes: c.Limits.Owner.HistoryBytes, Exempt: uint32(os.Geteuid())}}}
	problems := []error{next.level.UnmarshalText([]byte(c.Daemon.LogLevel))}
	if c.Daemon.Group != "" {
		problems = append(problems, named("daemon.group", next.setGroup(c.Daemon.Group)))
	}
	if c.Monitoring.Prometheus != "" {
		problems = append(problems, named("monitoring.prometheus", next.setMetrics(c.Monitoring.Prometheus)))
	}
	*o = next
	return errors.Join(problems...)
}

func named(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("configuration: %s: %w", key, err)
}

// explained is an error with the remedies that a configuration's problems have.
func explained(err error) string {
	var list fault.List
	if !errors.As(err, &list) {
		return err.Error()
	}
	lines := make([]string, len(list))
	for i, f := range list {
		lines[i] = f.Error()
		if f.Hint != "" {
			lines[i] += ". " + f.Hint
		}
	}
	return strings.Join(lines, "\n")
}
