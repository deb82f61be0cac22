package main

import "strings"

const appHelp = `capsulectl runs a command in a fresh sandbox and reports a verdict.

Usage:
  capsulectl run [flags] [--] CMD ARG...    run a command
  capsulectl run --json < request.json      the same for programs
  capsulectl VERB --help                    more about a verb

Verbs:
  run          run a command in a fresh sandbox
  ps           list executions
  inspect      show what is known of executions
  logs         print the output of an execution
  attach       connect to a running execution
  wait         wait until executions have ended
  stop         end executions, politely at first
  kill         send a signal to executions
  rm           forget executions that have ended
  stats        show what running executions use
  events       print what happens
  prune        forget executions that have ended
  info         describe the supervisor
  schema       print the JSON Schema of the request or the response
  bundle       make, judge, run and compare OCI bundles
  config       print, show or check the configuration
  doctor       find out what this host can do, and mend it
  seccomp      read and make system call filters: list, explain, generate ...
  kube         run a request as a job of a Kubernetes cluster
  bench        measure what a sandbox costs on this host
  completion   print a completion script for bash, zsh or fish
  version      print the version
  help         print this text, or the help of a verb

Environment:
  CAPSULE_STATE    state directory (default /run/capsule as root, else $XDG_RUNTIME_DIR/capsule)
  CAPSULE_ADDRESS  socket of the daemon (default capsuled.sock in the state directory)
  CAPSULE_CONFIG   configuration file (default: see capsulectl config --help)
  CAPSULE_PROFILE  profile of run, where --profile names none (default: none)
  CAPSULE_SHIM     the program capsule-shim (default: beside capsulectl)
  NO_COLOR         with any value: no colours; there are none either where TERM is dumb

Examples:
  capsulectl run -- python3 -c 'print(6*7)'
  capsulectl run -t 10s -m 512M --readonly . -w "$PWD" -- make test
  id=$(capsulectl run -d -- ./job); capsulectl logs -f $id; capsulectl wait $id
  echo '{"command":["id"]}' | capsulectl run --json
`

const runHelpHead = `Run a command in a fresh sandbox: its output streams through, its exit status
becomes that of capsulectl. Flags stand before the command; what follows it
belongs to it.

Usage:
  capsulectl run [flags] [--] CMD ARG...
  capsulectl run --json [--pretty] < request.json
  capsulectl run -f request.toml
  capsulectl run --lang python|node|bash [FILE [ARG...]]

With --lang the script of FILE, or of stdin, becomes an argument of the interpreter,
which is looked for in the sandbox's root.

It runs through the daemon capsuled when that answers, otherwise in this process.
When capsulectl dies, so does the command, unless it was started with -d.

Examples:
  capsulectl run -- python3 -c 'print(6*7)'
  capsulectl run -t 5s -m 128M ls -l /
  capsulectl run --readonly . -w "$PWD" -- pytest -q
  capsulectl run --bind ./data:/workspace/data:rw -e MODE=fast -- ./data/job.sh
  cat numbers.txt | capsulectl run -i -- sort -n
  echo 'print(6*7)' | capsulectl run --lang python
  capsulectl run -f request.toml -o json --pretty
  id=$(capsulectl run -d -- make test); capsulectl logs -f $id
  capsulectl run -o json --pretty --label user=42 -- sh -c 'exit 7'
  echo '{"command":["id"],"timeout_ms":2000}' | capsulectl run --json
`

const runHelpTail = `
Exit status:
  the command's own, or
  124  timeout                    126  the command cannot be executed
  125  capsule refused or failed  127  the command was not found
  137  out of memory, or killed   128+n  killed by signal n
  Ctrl-C, SIGTERM, SIGHUP and SIGQUIT go to the command, other signals by capsulectl
  kill -s; a second Ctrl-C or SIGTERM within 5 s kills it.
`

// runHelp is the help text of run, with the flags by group in the table's order.
func runHelp() string {
	width := 0
	for i := range options {
		if options[i].IsVisible() {
			width = max(width, len(options[i].spelling()))
		}
	}
	var b strings.Builder
	b.WriteString(runHelpHead)
	group := ""
	for i := range options {
		o := &options[i]
		if !o.IsVisible() {
			continue
		}
		if o.group != group {
			group = o.group
			b.WriteString("\n" + group + ":\n")
		}
		name := o.spelling()
		b.WriteString("  " + name + strings.Repeat(" ", width-len(name)+2) + o.usage + "\n")
	}
	b.WriteString(runHelpTail)
	return b.String()
}

const versionHelp = `Print the version, the commit and the Go release that it was built with.

Usage:
  capsulectl version [-o FORMAT]

Flags:
  -o, --output FORMAT  human (or table), json, or template=TEXT, a Go template over the JSON
  -h, --help           print this text

Examples:
  capsulectl version
  capsulectl version -o template='{{.version}}'
`

const schemaHelp = `Print the JSON Schema (2020-12) of an ExecutionRequest or an ExecutionResponse.

Usage:
  capsulectl schema request|response

Examples:
  capsulectl schema request > request.schema.json
  capsulectl schema response
`

const completionHelp = `Print a completion script. It completes verbs, flags, ids of executions and names of
profiles.

Usage:
  capsulectl completion bash|zsh|fish
  capsulectl completion profiles         print the names of profiles, one a line

Examples:
  source <(capsulectl completion bash)
  capsulectl completion zsh > "${fpath[1]}/_capsulectl"
  capsulectl completion fish > ~/.config/fish/completions/capsulectl.fish
`
