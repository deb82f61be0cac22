package bundle

import "strings"

// Readme tells how to run a bundle that Write makes. id is the execution that it
// comes from; empty: none.
func (p *Portable) Readme(stdin bool, id string) string {
	var b strings.Builder
	b.WriteString("# An OCI bundle of capsule\n\n")
	if id != "" {
		b.WriteString("It is the sandbox and the command of execution " + id + ".\n\n")
	}
	b.WriteString("`config.json` follows the OCI runtime specification, `rootfs` is its root, `request.json` the request that both were made of")
	input := ""
	if stdin {
		b.WriteString(", and `stdin` what the command reads")
		input = " < stdin"
	}
	b.WriteString(`. The host's programs and
libraries are not in it: they are bind mounts, at the same places on the host that runs it. For another machine,
copy this directory with the owners of its files (` + "`tar --numeric-owner`, `rsync -a --numeric-ids`" + `), and see that the
sources under ` + "`mounts`" + ` are there.

Run it, as root and in this directory:

    runc run --bundle . some-name` + input + `
    crun run --bundle . some-name` + input + `
    capsulectl bundle run` + map[bool]string{true: " -i", false: ""}[stdin] + " ." + input + `

What capsule would do, what it says of it, and what differs under another runtime:

    capsulectl bundle explain .
    capsulectl bundle validate .
    capsulectl bundle compare . --with runc

The directories above must let everybody pass (mode o+x): inside its user namespace the runtime is not root any more.

What no bundle can say, and other runtimes do not do: the deadline, the bounds of the output, the CPU time, and the
verdict.
`)
	for _, n := range p.Notes {
		b.WriteString("\n* " + n + "\n")
	}
	return b.String()
}
