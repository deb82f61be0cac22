package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

const kubeHelp = `Run an ExecutionRequest as a Job of a Kubernetes cluster whose nodes have capsule as a
runtime, and print the ExecutionResponse. The node's shim judges the command from
outside of its container. Exit status as of capsulectl run.

Usage:
  capsulectl kube run [flags] < request.json
  capsulectl kube run [flags] -f request.json

Flags:
  -f, --file FILE          the request (default -: stdin)
      --image IMAGE        the root of the command (default $CAPSULE_KUBE_IMAGE, else
                           docker.io/library/debian:stable-slim)
  -p, --profile NAME       a shipped profile to begin from
      --kubeconfig FILE    as of kubectl (default $KUBECONFIG, else ~/.kube/config, else the
                           service account of the pod that this runs in)
      --context NAME       the context of the kubeconfig
  -n, --namespace NAME     where the job is made (default that of the context)
      --name NAME          of the job (default capsule- and a random number)
      --runtime-class NAME the RuntimeClass (default capsule)
      --start-timeout TIME how long the pod may take until its command runs (default 5m)
      --runtime-seccomp    the container runtime's own filter in the place of capsule's,
                           which the installer puts on nodes
      --host-users         no user namespace, for nodes that have none for pods
      --keep               leave the job behind; it goes 5 minutes after its end
      --dry-run            print the Job, which kubectl apply -f takes, and make nothing
      --pretty             indent the JSON
  -v, --verbose            tell on stderr how far the pod is
  -h, --help               print this text

Examples:
  capsulectl kube run -f request.json --image docker.io/library/python:3-slim
  echo '{"command":["id"]}' | capsulectl kube run -n sandboxes -v
  capsulectl kube run --dry-run -f request.json | kubectl apply --dry-run=server -f -
`

// kubeProgram talks to API servers. Its libraries are twice the size of this program.
const kubeProgram = "capsule-kube"

// kubeCommand becomes the program that stands beside this one.
func (c *console) kubeCommand(code *int) *cli.Command {
	return &cli.Command{
		Name: "kube", Usage: "run a request as a job of a Kubernetes cluster", ArgsUsage: "run [flags]", SkipFlagParsing: true,
		HideHelp: true, HideHelpCommand: true, CustomHelpTemplate: literal(kubeHelp),
		Action: func(ctx *cli.Context) error {
			args := ctx.Args().Slice()
			if len(args) == 0 || slices.ContainsFunc(args, func(a string) bool { return a == "-h" || a == "--help" || a == "-help" }) {
				*code = c.help("kube")
				return nil
			}
			path, err := beside(kubeProgram)
			if err != nil {
				return err
			}
			*code = spec.ExitRefused
			err = c.become(path, append([]string{kubeProgram}, args...), os.Environ())
			return fault.Wrap(fault.IO, "execute", err).WithPath(path)
		},
	}
}

// beside finds a program in the directory of this one, else by PATH.
func beside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.Wrap(fault.Unsupported, "find "+name, err).WithHint("Install " + name + " beside capsulectl or on PATH.")
	}
	return path, nil
}
