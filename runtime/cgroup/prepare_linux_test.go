package cgroup

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPrepareByManyAtOnce starts many processes in a cgroup where nothing is
// prepared and that has them all inside, which is what the rule against
// internal processes forbids: they must agree on a place.
func TestPrepareByManyAtOnce(t *testing.T) {
	h := needHost(t, Pids)
	if h.Controller(Pids).Version != 2 {
		t.Skip("controllers are on v1, which has no such rule")
	}
	for name, mark := range map[string]bool{"delegated": true, "not delegated": false} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, h, nil)
			path := g.v2().path
			if mark {
				if err := unix.Setxattr(path, "user.delegate", []byte("1"), 0); err != nil {
					t.Skipf("no extended attributes on cgroups before 5.7: %v", err)
				}
			}
			gate, release, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer gate.Close()
			defer release.Close()
			outputs := make([]bytes.Buffer, 50)
			cmds := make([]*exec.Cmd, len(outputs))
			for i := range cmds {
				cmd := start(t, g, "create")
				cmd.Stdin, cmd.Stdout, cmd.Stderr = gate, &outputs[i], &outputs[i]
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				cmds[i] = cmd
			}
			// Only when all are inside may the first begin: nobody can be
			// started in a cgroup that gives controllers to its children.
			release.Close()
			for i, cmd := range cmds {
				if err := cmd.Wait(); err != nil {
					t.Errorf("%v: %s", err, &outputs[i])
					continue
				}
				out := outputs[i].String()
				if inside := strings.HasPrefix(out, path+"/"+groupPrefix); inside != mark {
					t.Errorf("group at %s, own cgroup %s", out, path)
				}
			}
			kill(t, g)
		})
	}
}
