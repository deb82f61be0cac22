package shim

import (
	"os"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// identify is the content of shim.json: the pid with its start time (clock
// ticks since boot, proc_pid_stat(5)) and the id of the boot, so that a reused
// pid is never taken for this process.
func identify() ([]byte, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil, fault.Wrap(fault.IO, "identify the shim", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fault.Wrap(fault.IO, "identify the shim", err)
	}
	// The command name in parentheses may hold anything; fields follow its end.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return nil, fault.New(fault.IO, "identify the shim", "/proc/self/stat is too short")
	}
	return []byte(`{"version":1,"pid":` + strconv.Itoa(os.Getpid()) + `,"start_time":` + fields[19] +
		`,"boot_id":"` + strings.TrimSpace(string(boot)) + `"}` + "\n"), nil
}
