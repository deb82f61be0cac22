package attack

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Main runs the attacks that the command line names, when it is the attacker's
// ("attack NAME..."), and ends the process; otherwise it does nothing. A test
// binary calls it first, so that it can be its own attacker.
func Main() {
	if len(os.Args) > 2 && os.Args[1] == "attack" {
		run(os.Args[2:])
		os.Exit(0)
	}
}

// run runs the named attacks in order and prints a line for each.
// NAME:ARGUMENT hands an argument over.
func run(names []string) {
	for _, name := range names {
		key, argument, _ := strings.Cut(name, ":")
		one, ok := attacks[key]
		if !ok {
			fmt.Printf("%s unknown\n", name)
			continue
		}
		if key == "init-files" || strings.HasSuffix(key, "-init") && key != "become-init" {
			settle()
		}
		fmt.Printf("%s %s\n", name, strings.ReplaceAll(one(argument), "\n", "|"))
	}
}

// attacks are what the attacker can do, by name. Each runs inside and says in
// one line what came of it.
var attacks = func() map[string]func(string) string {
	all := map[string]func(string) string{
		"ids": ids, "caps": caps, "fds": fds, "env": env, "session": session, "tty": tty, "namespaces": namespaces,
		"processes": processes, "init-files": initFiles, "init-race": initRace, "masked": masked, "sysctl": sysctl,
		"writable": writable, "devices": devices, "exes": exes, "filesystems": filesystems, "loopback": loopback,
		"tcp": tcp, "abstract": abstract, "sysv": sysv, "mqueue": mqueue, "hostname": hostname, "exists": exists,
		"create": create, "open": open, "read": read, "exec": execute, "limits": limits, "wait": wait,
	}
	maps.Copy(all, more)
	for name, c := range Calls {
		all[name] = func(string) string { return forked(c...) }
	}
	for _, more := range []map[string][]call{Setuid, Harmless, Legacy} {
		for name, c := range more {
			all[name] = func(string) string { return forked(c...) }
		}
	}
	return all
}()

func ids(string) string {
	ru, eu, su := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	groups, err := unix.Getgroups()
	return fmt.Sprint(ru, eu, su, rg, eg, sg, groups, errnoName(err))
}

// caps are the five sets, no_new_privs and the filter, as the kernel tells.
func caps(string) string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return errnoName(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
			n, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return err.Error()
			}
			out = append(out, key[3:]+"="+strconv.FormatUint(n, 16))
		case "NoNewPrivs", "Seccomp":
			out = append(out, key+"="+strings.TrimSpace(value))
		}
	}
	return strings.Join(out, " ")
}

// fds are the open descriptors besides the one that lists them.
func fds(string) string {
	dir, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return errnoName(err)
	}
	defer unix.Close(dir)
	return strings.Join(slices.DeleteFunc(list(dir), func(n string) bool { return n == strconv.Itoa(dir) }), " ")
}

func list(dir int) []string {
	var names []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if err != nil || n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return names
}

func env(string) string {
	e := os.Environ()
	slices.Sort(e)
	return strings.Join(e, " ")
}

// session tells whether the payload leads its session, and where it stands.
func session(string) string {
	sid, err := unix.Getsid(0)
	if err != nil {
		return errnoName(err)
	}
	cwd, err := unix.Getwd()
	return fmt.Sprint(sid == os.Getpid(), " ", cwd, " ", errnoName(err))
}

func tty(string) string { return open("/dev/tty") }

// NamespaceNames are the entries of /proc/PID/ns that a sandbox has of its own.
var NamespaceNames = []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

func namespaces(string) string {
	var out []string
	for _, name := range NamespaceNames {
		if target, err := os.Readlink("/proc/self/ns/" + name); err == nil {
			out = append(out, target)
		}
	}
	return strings.Join(out, " ")
}

// execute replaces the attacker with another one that tells ids and sets.
func execute(path string) string {
	return "exec " + errnoName(unix.Exec(path, []string{path, "attack", "ids", "caps"}, os.Environ()))
}

func limits(string) string {
	var core, files unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &core)
	if err == nil {
		err = unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	}
	return fmt.Sprint("core ", core.Cur, " ", core.Max, " nofile ", files.Max, " ", errnoName(err))
}
