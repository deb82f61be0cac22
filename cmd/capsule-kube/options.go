package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// defaultImage has a shell, and what a small program needs.
const defaultImage = "docker.io/library/debian:stable-slim"

// options are the flags of `run`. capsulectl's help text tells what they mean.
type options struct {
	file, image, name, runtimeClass, profile string
	kubeconfig, context, namespace           string
	patience                                 time.Duration
	runtimeSeccomp, hostUsers                bool
	keep, dryRun, pretty, verbose, help      bool
}

// parse reads the arguments. The options are never nil.
func parse(args []string) (*options, error) {
	o := &options{}
	if len(args) == 0 || args[0] != "run" {
		return o, fault.New(fault.InvalidValue, "capsulectl kube", "the only verb is run").WithHint("capsulectl kube run -f request.json")
	}
	image := os.Getenv("CAPSULE_KUBE_IMAGE")
	if image == "" {
		image = defaultImage
	}
	f := flag.NewFlagSet("kube run", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.file, "f", "-", "")
	f.StringVar(&o.file, "file", "-", "")
	f.StringVar(&o.image, "image", image, "")
	f.StringVar(&o.name, "name", "", "")
	f.StringVar(&o.runtimeClass, "runtime-class", "capsule", "")
	f.StringVar(&o.profile, "p", "", "")
	f.StringVar(&o.profile, "profile", "", "")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "")
	f.StringVar(&o.context, "context", "", "")
	f.StringVar(&o.namespace, "n", "", "")
	f.StringVar(&o.namespace, "namespace", "", "")
	f.DurationVar(&o.patience, "start-timeout", 5*time.Minute, "")
	f.BoolVar(&o.runtimeSeccomp, "runtime-seccomp", false, "")
	f.BoolVar(&o.hostUsers, "host-users", false, "")
	f.BoolVar(&o.keep, "keep", false, "")
	f.BoolVar(&o.dryRun, "dry-run", false, "")
	f.BoolVar(&o.pretty, "pretty", false, "")
	f.BoolVar(&o.verbose, "v", false, "")
	f.BoolVar(&o.verbose, "verbose", false, "")
	err := f.Parse(args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		o.help = true
		return o, nil
	case err != nil:
		return o, usage(strings.TrimPrefix(err.Error(), "flag provided but not defined: "))
	case f.NArg() > 0:
		return o, usage("takes no arguments: " + f.Arg(0))
	case o.patience <= 0:
		return o, usage("--start-timeout is not greater than 0")
	case o.image == "":
		return o, usage("--image is empty")
	}
	return o, nil
}

func usage(text string) error {
	return fault.New(fault.InvalidValue, "capsulectl kube run", text).WithHint("See capsulectl kube run --help.")
}

// request reads the document.
func (o *options) request(in io.Reader) (*spec.Request, error) {
	name := o.file
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fault.Wrap(fault.InvalidPath, "open the request", err).WithField("--file").WithPath(name)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, spec.MaxDocumentBytes+1))
	if err != nil {
		return nil, fault.Wrap(fault.IO, "read the request", err).WithPath(name)
	}
	base := spec.Default()
	if o.profile != "" {
		if err := base.ApplyProfile(o.profile); err != nil {
			return nil, err
		}
	}
	return spec.DecodeOver(base, text)
}

// newID makes a random UUID. The command in the pod does not learn it: by this its own
// words are no verdict.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
