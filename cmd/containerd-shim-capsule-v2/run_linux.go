package main

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/runtime/container/scope/ask"
	"github.com/capsule-run/capsule/runtime/task"
	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
)

// runtimeName is how containerd's configuration calls this.
const runtimeName = "io.containerd.capsule.v2"

// call is one call of the program.
type call struct {
	namespace, address, id, bundle string
	debug                          bool
	// helper is the path of capsule-seccomp, handed to the server.
	helper string
}

func run(args []string) error {
	f := flag.NewFlagSet("containerd-shim-capsule-v2", flag.ContinueOnError)
	var c call
	f.StringVar(&c.namespace, "namespace", "", "namespace of containerd's")
	f.StringVar(&c.address, "address", "", "containerd's socket")
	f.String("publish-binary", "", "ignored: events go to containerd's ttrpc socket")
	f.StringVar(&c.id, "id", "", "the container")
	f.StringVar(&c.bundle, "bundle", "", "directory with config.json (default: the working directory)")
	f.BoolVar(&c.debug, "debug", false, "tell more")
	f.StringVar(&c.helper, "helper", "", "for the server: capsule-seccomp")
	show := f.Bool("v", false, "show the version")
	about := f.Bool("info", false, "write what the runtime can do, as RuntimeInfo of api/types/introspection.proto")
	if err := f.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return fault.Wrap(fault.InvalidValue, "read flags", err)
	}
	switch {
	case *show:
		_, err := os.Stdout.WriteString(f.Name() + " version " + version + "\nrevision: " + commit + "\nspec: " + specs.Version + "\n")
		return err
	case *about:
		return info()
	}
	if c.bundle == "" {
		dir, err := os.Getwd()
		if err != nil {
			return fault.Wrap(fault.InvalidBundle, "find bundle", err)
		}
		c.bundle = dir
	}
	switch f.Arg(0) {
	case "start":
		return c.start()
	case "delete":
		return c.delete()
	case "serve":
		return c.serve()
	}
	return fault.New(fault.InvalidValue, "read command", "is none of start and delete: containerd calls this program")
}

// delete takes away what is left of a container whose server was killed.
func (c *call) delete() error {
	self, err := os.Executable()
	if err != nil {
		return fault.Wrap(fault.IO, "find the program", err)
	}
	useScopes(self)
	answer, err := task.Abandoned(c.id, c.bundle, func(err error) { _, _ = os.Stderr.WriteString(err.Error() + "\n") })
	if err != nil {
		return err
	}
	forget(c.bundle)
	_, err = os.Stdout.Write(answer)
	return err
}

// useScopes has control groups made as scopes of systemd by the capsule-oci that stands
// beside a program, for containers that are to have such.
func useScopes(program string) {
	scope.Use(ask.Manager{Program: filepath.Join(filepath.Dir(program), "capsule-oci")})
}

// info writes what the runtime can do.
func info() error {
	features, err := json.Marshal(container.Features())
	if err != nil {
		return fault.Wrap(fault.IO, "encode features", err)
	}
	m := wire.Message(nil).PutString(1, runtimeName).Put(2, wire.Message(nil).PutString(1, version).PutString(2, commit)).
		PutAny(4, "types.containerd.io/opencontainers/runtime-spec/1/features/Features", wire.Message(features))
	_, err = os.Stdout.Write(m)
	return err
}

// logger writes to the FIFO that containerd reads, and waits for nobody.
func logger(path string) func(error) {
	return func(err error) {
		f, bad := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|nonblock, 0)
		if bad != nil {
			return // containerd is away, and so is whoever would read it
		}
		defer f.Close()
		text, _ := json.Marshal(err.Error())                                                                                        // text always encodes
		_, _ = f.WriteString("time=\"" + time.Now().UTC().Format(time.RFC3339Nano) + "\" level=warning msg=" + string(text) + "\n") // see above
	}
}
