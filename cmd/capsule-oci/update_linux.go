package main

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/spec/fault"
)

func (p *program) update(args []string) error {
	f := flags("update")
	var file string
	both(f.StringVar, &file, "resources", "r", "", "file with the resources, - for stdin")
	r := &specs.LinuxResources{Memory: new(specs.LinuxMemory), CPU: new(specs.LinuxCPU), Pids: new(specs.LinuxPids)}
	number := func(name string, to **int64) {
		f.Func(name, "number", func(text string) error {
			n, err := strconv.ParseInt(text, 10, 64)
			*to = &n
			return err
		})
	}
	positive := func(name string, to **uint64) {
		f.Func(name, "number", func(text string) error {
			n, err := strconv.ParseUint(text, 10, 64)
			*to = &n
			return err
		})
	}
	number("memory", &r.Memory.Limit)
	number("memory-swap", &r.Memory.Swap)
	number("memory-reservation", &r.Memory.Reservation)
	number("cpu-quota", &r.CPU.Quota)
	number("cpu-rt-runtime", &r.CPU.RealtimeRuntime)
	number("pids-limit", &r.Pids.Limit)
	positive("cpu-shares", &r.CPU.Shares)
	positive("cpu-share", &r.CPU.Shares)
	positive("cpu-period", &r.CPU.Period)
	positive("cpu-rt-period", &r.CPU.RealtimePeriod)
	f.StringVar(&r.CPU.Cpus, "cpuset-cpus", "", "list of CPUs")
	f.StringVar(&r.CPU.Mems, "cpuset-mems", "", "list of memory nodes")
	f.Func("blkio-weight", "number", func(text string) error {
		n, err := strconv.ParseUint(text, 10, 16)
		w := uint16(n)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
		return err
	})
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if file != "" {
		if err := alone(f); err != nil {
			return err
		}
		if r, err = readResources(file); err != nil {
			return err
		}
	}
	return p.rt.Update(rest[0], r)
}

// alone: a file says everything, so another flag would be passed over.
func alone(f *flag.FlagSet) (err error) {
	f.Visit(func(one *flag.Flag) {
		if one.Name != "resources" && one.Name != "r" {
			err = fault.New(fault.InvalidValue, "update", "stands beside --resources, which says everything").WithField(one.Name)
		}
	})
	return err
}

func readResources(file string) (*specs.LinuxResources, error) {
	in := os.Stdin
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return nil, fault.Wrap(fault.IO, "read resources", err).WithPath(file)
		}
		defer in.Close()
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "read resources", err).WithPath(file)
	}
	r, err := specjson.ReadResources(text)
	if err != nil {
		return nil, fault.From(err, fault.InvalidBundle).WithPath(file)
	}
	return r, nil
}

func (p *program) spec(args []string) error {
	f := flags("spec")
	var bundle string
	both(f.StringVar, &bundle, "bundle", "b", ".", "directory for config.json")
	if _, err := parse(f, args, 0, 0); err != nil {
		return err
	}
	name := filepath.Join(bundle, "config.json")
	text, err := json.MarshalIndent(container.Default(), "", "\t")
	if err != nil {
		return fault.Wrap(fault.IO, "encode", err)
	}
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fault.Wrap(fault.IO, "write configuration", err).WithPath(name)
	}
	if _, err = out.Write(append(text, '\n')); err == nil {
		err = out.Close()
	}
	if err != nil {
		return fault.Wrap(fault.IO, "write configuration", err).WithPath(name)
	}
	return nil
}

func (p *program) features(args []string) error {
	if _, err := parse(flags("features"), args, 0, 0); err != nil {
		return err
	}
	return document(container.Features())
}
