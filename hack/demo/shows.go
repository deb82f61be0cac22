package main

import (
	"fmt"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

// show is one command and what must become of it.
type show struct {
	title string
	// request is the document that capsulectl reads, as a user would write it.
	request string
	reason  spec.Reason
	// said must occur in the output; empty: anything may.
	said string
	// remark takes the place of the output in the table, where the numbers of
	// the verdict say more. Nil: the first line of the output, or the error.
	remark func(spec.Response) string
}

// check says what is wrong with the verdict; empty when nothing is.
func (s show) check(r spec.Response) string {
	if r.Termination.Reason != s.reason {
		return fmt.Sprintf("expected %s, got %s", s.reason, r.Termination.Reason)
	}
	if all := text(r.Stdout) + text(r.Stderr); !strings.Contains(all, s.said) {
		return fmt.Sprintf("expected %q in the output, got %q", s.said, all)
	}
	return ""
}

// shows lists them. hostFile is a file of the host, outside of every sandbox.
func shows(hostFile string) []show {
	return []show{
		{title: "python prints 6 * 7", reason: spec.ReasonExited, said: "42",
			request: `{"command":["python3","-c","print(6*7)"]}`},
		{title: "a pipeline of 10,000 lines", reason: spec.ReasonExited, said: "10000",
			request: `{"command":["sh","-c","seq 10000 | sort -rn | wc -l"]}`},
		{title: "exit with code 7", reason: spec.ReasonExited,
			request: `{"command":["sh","-c","echo no luck >&2; exit 7"]}`},
		{title: "a segmentation fault", reason: spec.ReasonSignaled,
			request: `{"command":["python3","-c","import ctypes; print('reading 0', flush=True); ctypes.string_at(0)"]}`},
		{title: "a program that is not there", reason: spec.ReasonSetupFailed,
			request: `{"command":["no-such-program"]}`},
		{title: "ignores SIGTERM, hides in setsid", reason: spec.ReasonTimeoutWall, said: "hiding",
			request: `{"command":["sh","-c","trap '' TERM; setsid sleep 99 & echo hiding; sleep 99"],"timeout_ms":500,"grace_ms":200}`},
		{title: "wants all the memory, has 64 MiB", reason: spec.ReasonOOM, said: "taking",
			request: `{"command":["python3","-c","print('taking', flush=True); a=[bytearray(1<<20) for _ in range(4096)]"],"resources":{"memory_bytes":67108864}}`},
		{title: "a fork bomb, held at 20", reason: spec.ReasonTimeoutWall, remark: pids,
			request: `{"command":["python3","-c","import os\nwhile 1:\n  try: os.fork()\n  except OSError: pass"],"timeout_ms":700,"grace_ms":0,"resources":{"max_pids":20}}`},
		{title: "writes 200 MB of output", reason: spec.ReasonExited, remark: bytesKept,
			request: `{"command":["sh","-c","yes | head -c 200000000"]}`},
		{title: "fills the disk, has 8 MiB", reason: spec.ReasonDiskLimit, said: "No space left",
			request: `{"command":["sh","-c","for i in 1 2 3 4; do head -c 5M /dev/zero >/tmp/$i || exit; done"],"resources":{"disk_bytes":8388608}}`},
		{title: "calls out to the network", reason: spec.ReasonExited, said: "unreachable",
			request: `{"command":["bash","-c","exec 2>&1; echo >/dev/tcp/192.0.2.1/80"]}`},
		{title: "overwrites a file of the host", reason: spec.ReasonExited,
			request: fmt.Sprintf(`{"command":["sh","-c","echo mine >%s"]}`, hostFile)},
		{title: "changes /usr/bin", reason: spec.ReasonExited,
			request: `{"command":["cp","/bin/true","/usr/bin/backdoor"]}`},
		{title: "makes the host run its program", reason: spec.ReasonExited, said: "Read-only file system",
			request: `{"command":["sh","-c","echo '|/tmp/mine' >/proc/sys/kernel/core_pattern"]}`},
		{title: "looks for other processes", reason: spec.ReasonExited, said: " 2\n", // itself, and process 1 where that cannot be hidden
			request: `{"command":["sh","-c","cd /proc && echo sees only [0-9]*"]}`},
		{title: "becomes root in a new namespace", reason: spec.ReasonExited, said: "not permitted",
			request: `{"command":["unshare","--user","--map-root-user","id"]}`},
	}
}

func pids(r spec.Response) string {
	if r.Metrics.MaxPids == nil {
		return "peak not measured here"
	}
	return fmt.Sprintf("%d processes at most", *r.Metrics.MaxPids)
}

func bytesKept(r spec.Response) string {
	if r.Output == nil {
		return "no counts"
	}
	s := r.Output.Stdout
	return fmt.Sprintf("kept %.0f of %.0f MB", float64(s.BytesKept)/1e6, float64(s.BytesTotal)/1e6)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
