package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host describes the machine, without its name.
type host struct {
	Date       string `json:"date"`
	Kernel     string `json:"kernel"`
	CPUs       int    `json:"cpus"`
	Model      string `json:"cpu_model"`
	MemoryMiB  uint64 `json:"memory_mib"`
	Cgroup     string `json:"cgroup"`
	User       string `json:"user"`
	Go         string `json:"go"`
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

func describeHost() host {
	h := host{Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPUs: runtime.NumCPU(), Model: cpuModel(), Go: runtime.Version(), User: "an ordinary user", Cgroup: "v1"}
	if os.Geteuid() == 0 {
		h.User = "root"
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		// What a distributor appends names a machine of theirs.
		h.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.MemoryMiB = info.Totalram * uint64(info.Unit) >> 20
	}
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		h.Cgroup = "v2"
	} else if unix.Statfs("/sys/fs/cgroup/unified", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		h.Cgroup = "hybrid (controllers on v1)"
	}
	return h
}

// text begins a report.
func (h *host) text() string {
	return fmt.Sprintf("Measured %s: Linux %s, %d CPUs (%s), %d MiB, cgroup %s, as %s, %s.\nLoad average (1 and 5 minutes) %s before and %s after.\n",
		h.Date, h.Kernel, h.CPUs, h.Model, h.MemoryMiB, h.Cgroup, h.User, h.Go, h.LoadBefore, h.LoadAfter)
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// loadAverage is the kernel's for 1 and 5 minutes.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return "unknown"
	}
	return fields[0] + ", " + fields[1]
}

// versionOf asks a program; it answers with one line that we need.
func versionOf(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || line == "" {
		return "unknown version"
	}
	return line
}
