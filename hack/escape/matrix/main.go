// Command matrix shows that every wall has a witness: for each name in
// breach.Of("...") it builds the programs without that wall, runs hack/escape
// and the tests of hack/walls that use the programs, as root and as an
// unprivileged user, and prints which fail. It fails when no test notices that
// a wall is gone, and when one fails although every wall stands.
//
//	go run ./hack/escape/matrix [-only NAMES] [-all]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	only := flag.String("only", "", "walls to take out, with commas between; default: all")
	all := flag.Bool("all", false, "name every test that notices, not three")
	flag.Parse()
	if err := run(*only, *all); err != nil {
		fmt.Fprintln(os.Stderr, "walls:", err)
		os.Exit(1)
	}
}

// bench is a directory with everything that a run needs.
type bench struct {
	dir   string
	users []user
}

type user struct {
	name string
	uid  uint32
}

func run(only string, all bool) error {
	dir, err := os.MkdirTemp("/var/tmp", "capsule-matrix-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b := bench{dir: dir, users: []user{{"own", uint32(os.Getuid())}}}
	if os.Getuid() == 0 {
		b.users = []user{{"root", 0}, {"other", 65534}}
	}
	for _, pkg := range []string{"escape", "walls"} {
		if err := command("go", "test", "-c", "-tags", "urfave_cli_no_docs", "-o", filepath.Join(dir, pkg+".test"), "./hack/"+pkg); err != nil {
			return err
		}
	}
	if err := command("go", "build", "-tags", "urfave_cli_no_docs,osusergo,netgo", "-o", dir+"/", "./cmd/capsule-seccomp"); err != nil {
		return err
	}
	names, err := walls()
	if err != nil {
		return err
	}
	if only != "" {
		names = strings.Split(only, ",")
	}
	failed, err := b.notice("none")
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("with every wall in place these fail: %v", failed)
	}
	unseen := []string{}
	for _, name := range names {
		began := time.Now()
		failed, err := b.notice(name)
		if err != nil {
			return err
		}
		if len(failed) == 0 {
			if why := absent(name); why != "" {
				fmt.Printf("%-26s not here: %s\n", name, why)
				continue
			}
			unseen = append(unseen, name)
		}
		if shown := 3; !all && len(failed) > shown {
			failed = append(failed[:shown:shown], fmt.Sprintf("and %d more", len(failed)-shown))
		}
		fmt.Printf("%-26s %s (%d s)\n", name, strings.Join(failed, ", "), int(time.Since(began).Seconds()))
	}
	if len(unseen) > 0 {
		return fmt.Errorf("nothing notices that these are gone: %s", strings.Join(unseen, ", "))
	}
	fmt.Printf("each of %d walls has a witness\n", len(names))
	return nil
}

// absent says why this host does not have what a wall is against.
func absent(wall string) string {
	if _, err := os.Stat("/proc/keys"); wall == "keyring" && err != nil {
		return "this kernel has no keys"
	}
	if _, err := os.Stat("/proc/self/ns/time"); wall == "time_namespace" && err != nil {
		return "this kernel has no time namespaces"
	}
	if _, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1); wall == "landlock" && errno != 0 {
		return "this kernel has no Landlock"
	}
	if os.Getuid() != 0 && slices.Contains([]string{"id_slots", "idmapped_binds", "init_ids", "memory_limit", "pids_limit", "setgroups", "nodev", "user_namespace"}, wall) {
		return "root has it"
	}
	return ""
}

// walls are the names in the code.
func walls() ([]string, error) {
	mark := regexp.MustCompile(`breach\.Of\("([a-z_+]+)"\)`)
	var names []string
	for _, dir := range []string{"shim", "shim/host", "runtime/launch", "runtime/plan", "runtime/cgroup", "supervisor"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			for _, m := range mark.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
		}
	}
	if len(names) < 30 {
		return nil, fmt.Errorf("only %d walls are marked", len(names))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// notice builds the programs without a wall and gives the tests that fail.
func (b bench) notice(wall string) ([]string, error) {
	bin := filepath.Join(b.dir, "bin-"+wall)
	defer os.RemoveAll(bin)
	for _, program := range []string{"capsulectl", "capsule-shim"} {
		cmd := exec.Command("go", "build", "-tags", "urfave_cli_no_docs,breach", "-ldflags", "-s -w -X github.com/capsule-run/capsule/runtime/breach.wall="+wall,
			"-o", bin+"/", "./cmd/"+program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build without %s: %w\n%s", wall, err, out)
		}
	}
	if err := os.Link(filepath.Join(b.dir, "capsule-seccomp"), filepath.Join(bin, "capsule-seccomp")); err != nil {
		return nil, err
	}
	var failed []string
	for _, u := range b.users {
		for _, pkg := range []string{"escape", "walls"} {
			names, err := b.tests(pkg, bin, wall, u)
			if err != nil {
				return nil, err
			}
			failed = append(failed, names...)
		}
		if wall != "none" && len(failed) > 0 {
			break // one user's witness is enough
		}
	}
	return failed, nil
}

// tests runs one test binary and gives what fails.
func (b bench) tests(pkg, bin, wall string, u user) ([]string, error) {
	args := []string{"-test.v", "-test.timeout=5m"}
	if pkg == "walls" {
		args = append(args, "-test.run=^(TestHostileRootfs|TestOwnPrograms)$")
		if wall == "none" || wall == "source_links" {
			args[2] = "-test.run=^(TestHostileRootfs|TestOwnPrograms|TestRacedBind)$"
		}
	}
	cmd := exec.Command(filepath.Join(b.dir, pkg+".test"), args...)
	cmd.Dir = b.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "CAPSULE_BIN=" + bin, "CAPSULE_ESCAPE_BREACH=" + wall, "CAPSULE_ESCAPE_UNPRIVILEGED=1"}
	if int(u.uid) != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.uid}}
	}
	out, err := cmd.CombinedOutput()
	var failed []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			failed = append(failed, u.name+":"+name)
		}
	}
	if err != nil && len(failed) == 0 {
		return nil, fmt.Errorf("%s as %s without %s: %w\n%s", pkg, u.name, wall, err, out)
	}
	if wall == "none" && err != nil {
		fmt.Fprintf(os.Stderr, "%s", out)
	}
	return failed, nil
}

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}
