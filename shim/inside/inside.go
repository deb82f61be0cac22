// Package inside tells how a sandbox looks to the program in it. It runs as the
// command of a sandbox, under any runtime, and knows of none.
package inside

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// Argument is the first argument with which capsule-shim tells this.
const Argument = "inside"

// View is what the program sees. Every value is text as the kernel gives it.
type View struct {
	// IDs are the real, effective, saved and file system ids, and the groups.
	IDs map[string]string `json:"ids"`
	// Capabilities are the five sets, hexadecimal, and no_new_privs and seccomp.
	Capabilities map[string]string `json:"capabilities"`
	// Limits are "soft hard" by name.
	Limits map[string]string `json:"limits"`
	// Mounts are type and options by mount point; of several the last.
	Mounts map[string]string `json:"mounts"`
	// Place has the working directory, names of the machine, umask and environment.
	Place map[string]string `json:"place"`
	// Cgroup are the limits of the control group, where it can be seen.
	Cgroup map[string]string `json:"cgroup"`
}

// Main writes the view as JSON.
func Main(to io.Writer) error {
	v := View{IDs: map[string]string{}, Capabilities: map[string]string{}, Limits: map[string]string{},
		Mounts: map[string]string{}, Place: map[string]string{}, Cgroup: map[string]string{}}
	for _, part := range []func() error{v.status, v.limits, v.mounts, v.place} {
		if err := part(); err != nil {
			return fault.Wrap(fault.IO, "look around", err)
		}
	}
	v.cgroup()
	return json.NewEncoder(to).Encode(v)
}

func lines(file string, f func(string)) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close() // opened for reading
	s := bufio.NewScanner(in)
	for s.Scan() {
		f(s.Text())
	}
	return s.Err()
}

func (v *View) status() error {
	return lines("/proc/self/status", func(line string) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.Join(strings.Fields(value), " ")
		switch name {
		case "Uid", "Gid", "Groups":
			v.IDs[strings.ToLower(name)] = value
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
			v.Capabilities[name] = value
		case "Umask":
			v.Place["umask"] = value
		}
	})
}

func (v *View) limits() error {
	return lines("/proc/self/limits", func(line string) {
		const name, end = 26, 26 + 2*21 // columns of fs/proc/base.c
		if strings.HasPrefix(line, "Limit") || len(line) < end {
			return
		}
		v.Limits[strings.TrimSpace(line[:name])] = strings.Join(strings.Fields(line[name:end]), " ")
	})
}

// mounts: the part of the options that is the mount's own, of which the kernel's
// defaults are left out, and whether the file system is read-only.
func (v *View) mounts() error {
	return lines("/proc/self/mountinfo", func(line string) {
		head, tail, _ := strings.Cut(line, " - ")
		left, right := strings.Split(head, " "), strings.Split(tail, " ")
		if len(left) < 6 || len(right) < 3 {
			return
		}
		options := strings.Split(left[5], ",")
		options = slices.DeleteFunc(options, func(o string) bool { return o == "relatime" || o == "idmapped" })
		if right[0] == "tmpfs" {
			for o := range strings.SplitSeq(right[2], ",") {
				if strings.HasPrefix(o, "size=") || strings.HasPrefix(o, "mode=") || strings.HasPrefix(o, "nr_inodes=") {
					options = append(options, o)
				}
			}
		}
		slices.Sort(options)
		v.Mounts[left[4]] = right[0] + " " + strings.Join(options, ",")
	})
}

func (v *View) place() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	domain, err := os.ReadFile("/proc/sys/kernel/domainname")
	if err != nil {
		return err
	}
	v.Place["working directory"], v.Place["hostname"], v.Place["domainname"] = dir, host, strings.TrimSpace(string(domain))
	for _, kv := range os.Environ() {
		key, value, _ := strings.Cut(kv, "=")
		v.Place["environment "+key] = value
	}
	interfaces, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return err
	}
	var names []string
	for line := range strings.Lines(string(interfaces)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	slices.Sort(names)
	v.Place["network interfaces"] = strings.Join(names, " ")
	entries, err := os.ReadDir("/dev")
	if err == nil {
		var devices []string
		for _, e := range entries {
			devices = append(devices, e.Name())
		}
		v.Place["entries of /dev"] = strings.Join(devices, " ")
	}
	return nil
}

// cgroup reads the files of /sys/fs/cgroup where they are the own group's.
func (v *View) cgroup() {
	for _, file := range []string{"memory.max", "pids.max", "cpu.max", "cpu.weight",
		"memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.shares"} {
		if data, err := os.ReadFile("/sys/fs/cgroup/" + file); err == nil {
			v.Cgroup[file] = strings.TrimSpace(string(data))
		}
	}
	v.Cgroup["processes"] = strconv.Itoa(v.visible())
}

// visible counts the processes, this one and a reaping process 1 left out.
func (v *View) visible() int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return -1
	}
	n := 0
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != 1 && pid != os.Getpid() {
			n++
		}
	}
	return n
}
