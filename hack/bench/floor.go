package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/capsule-run/capsule/supervisor/bench"
)

// emptyGo is a Go program that does nothing: what each process of Go costs.
const emptyGo = "package main\n\nfunc main() {}\n"

// starterC starts a command in new namespaces and waits for it, in the cheapest
// way that the kernel has: its memory is shared until the execve.
const starterC = `
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static char stack[65536] __attribute__((aligned(16)));

static int start(void *argv) {
	char *const none[] = {0};
	execve(((char **)argv)[1], (char **)argv + 1, none);
	return 127;
}

int main(int argc, char **argv) {
	int status;
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWUSER;
	int pid = clone(start, stack + sizeof stack, flags | CLONE_VFORK | CLONE_VM | SIGCHLD, argv);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return 126;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
`

// starterGo does the same in Go. It has no user namespace, with which the
// syscall package would copy the process's memory.
const starterGo = `package main

import (
	"os"
	"syscall"
)

func main() {
	const flags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP
	p, err := os.StartProcess(os.Args[1], os.Args[1:], &os.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{Cloneflags: flags}})
	if err != nil {
		os.Exit(126)
	}
	state, err := p.Wait()
	if err != nil {
		os.Exit(126)
	}
	os.Exit(state.ExitCode())
}
`

// floors are no sandboxes: they do a part of what each sandbox must, and no more.
// What is made of these parts cannot take less.
func (f *field) floors() []*bench.Way {
	program := f.program("true")
	floor := func(name, walls string, argv ...string) *bench.Way {
		return &bench.Way{Name: name, Walls: walls, Open: bench.Command{Argv: argv, Env: f.environment()}.Open}
	}
	ways := []*bench.Way{
		floor("floor: an empty Go process", "none", f.program("empty")),
		floor("floor: C starts it in namespaces", "empty namespaces", f.program("starter-c"), program),
		floor("floor: Go starts it in namespaces", "empty namespaces", f.program("starter-go"), program),
	}
	if os.Geteuid() != 0 {
		ways[2].Absent = "needs root"
	}
	return ways
}

// compileGo builds one Go program as capsule's own are built.
func (f *field) compileGo(name, source string) error {
	file := filepath.Join(f.dir, name+".go")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f.program(name), file)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}
