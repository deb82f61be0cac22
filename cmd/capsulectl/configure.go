package main

import (
	"errors"
	"os"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/config"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// rules reads the configuration: the given file, or those that are found. Nil
// and no error: there is none, which costs a few system calls.
func (c *console) rules(given string) (*policy.Policy, error) {
	files, err := config.Find(given, c.lookupEnv)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	loaded, err := config.Load(files, c.lookupEnv)
	if err != nil {
		return nil, err
	}
	return policy.New(loaded)
}

// configure takes in what files and the environment say besides the flags.
func (c *console) configure(inv *invocation) (err error) {
	if inv.profile == "" {
		inv.profile = c.environment(config.VariableProfile)
	}
	inv.rules, err = c.rules(inv.config)
	return err
}

// base is the request that flags or a document change: built-in defaults, the
// configuration's, the profile's.
func (i *invocation) base() (*spec.Request, error) {
	if i.rules != nil {
		r, err := i.rules.Base(i.profile, uint32(os.Geteuid()))
		if err != nil {
			return nil, longOption("profile").wrap(err)
		}
		return r, nil
	}
	r := spec.Default()
	if i.profile != "" {
		if err := r.ApplyProfile(i.profile); err != nil {
			return nil, longOption("profile").wrap(err)
		}
	}
	return r, nil
}

func modeConfig(i *invocation, v string) error {
	if v == "" {
		return fault.New(fault.InvalidPath, "", "the path is empty").WithHint("An unset shell variable? Leave --config out to look in the usual places.")
	}
	i.config = v
	return nil
}

func modeCreateConfig(i *invocation, v string) (err error) {
	i.create, err = hostPath(v)
	return err
}

// writeDefault makes a file with every default. It replaces nothing.
func writeDefault(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = f.Write(config.DefaultFile())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fault.Wrap(fault.IO, "create configuration", err).WithHint("Name a file that does not exist, in a directory that this user can write.")
	}
	return nil
}
