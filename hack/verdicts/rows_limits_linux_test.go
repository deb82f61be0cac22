package verdicts

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

const mib = 1 << 20

func memory() []row {
	needs := []string{spec.LimitMemory}
	limit := object{"memory_bytes": 48 * mib}
	killed := func(t *testing.T, r *spec.Response) {
		atLeast(t, "oom_kills", r.Metrics.OOMKills, 1)
		atLeast(t, "max_memory_bytes", r.Metrics.MaxMemoryBytes, 46*mib)
		if detail(t, r, "memory_bytes") != float64(48*mib) || detail(t, r, "peak_bytes") == nil {
			t.Errorf("details %v", r.Error.Details)
		}
	}
	fine := func(t *testing.T, r *spec.Response) {
		if n := r.Metrics.OOMKills; n == nil || *n != 0 {
			t.Errorf("oom_kills %v, want 0", show(n))
		}
	}
	return []row{
		{name: "allocate slowly", command: payload("alloc", "400"), resources: limit, needs: needs, want: oom, also: killed},
		{name: "allocate in a shell's child", command: sh("/payload act alloc 400; sleep 1000"), resources: limit, needs: needs, want: oom, also: killed},
		{name: "allocate in a grandchild", command: sh("(/payload act alloc-child 400; sleep 1000) & wait; sleep 1000"), resources: limit, needs: needs, want: oom, also: killed},
		{name: "allocate in a session of its own", command: sh("setsid /payload act alloc 400 & sleep 1000"), resources: limit, needs: needs, want: oom, also: killed},
		{name: "allocate within the limit", command: payload("alloc", "24"), resources: limit, needs: needs, want: exited(0), also: fine},
		{name: "reserve and not touch", command: payload("reserve", "8"), resources: limit, needs: needs, want: exited(0), also: fine},
		{name: "page cache", command: sh("cat /usr/bin/* 2>/dev/null | head -c " + strconv.Itoa(300*mib/slow()) + " >/dev/null; exit 0"), resources: object{"memory_bytes": 16 * mib}, needs: needs, want: exited(0), also: fine},
		{name: "tmpfs does not take the memory", command: sh("for d in /tmp /workspace /var/tmp /run /dev/shm; do head -c 100M /dev/zero >$d/x; done; exit 0"), resources: limit, needs: needs, want: exited(0), also: fine},
		{name: "out of memory before the deadline", command: payload("alloc", "400"), resources: limit, needs: needs, want: oom,
			request: object{"timeout_ms": ms(20 * time.Second)}},
		{name: "out of memory in a deaf tree", command: sh(`trap "" TERM; /payload act alloc 400; sleep 1000`), resources: limit, needs: needs, want: oom},
		{name: "rlimit as is no oom", command: sh("exec /payload act alloc 400"), resources: object{"rlimits": object{"as": 64 * mib}, "memory_bytes": 512 * mib}, needs: needs,
			want: exited(2), also: fine}, // Go's runtime gives up with 2
	}
}

func processes() []row {
	needs := []string{spec.LimitPids}
	limit := object{"max_pids": 20}
	atLimit := func(t *testing.T, r *spec.Response) {
		if n := r.Metrics.MaxPids; n == nil || *n != 20 {
			t.Errorf("max_pids %v, want 20", show(n))
		}
	}
	// Of two forks that raise the kernel's peak at once the lower value may stay.
	nearLimit := func(t *testing.T, r *spec.Response) {
		if n := r.Metrics.MaxPids; n == nil || *n > 20 || *n < 15 {
			t.Errorf("max_pids %v, want 20 or little less", show(n))
		}
	}
	// Bounded by itself, too.
	const many = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; "
	// A shell gives up at the first fork that is refused; a subshell survives it.
	const survived = "(" + many + ") 2>/dev/null; "
	tried := func(t *testing.T, r *spec.Response) {
		atLimit(t, r)
		warned("refused")(t, r)
	}
	return []row{
		{name: "forks beyond the limit", command: sh(many + "exit 0"), resources: limit, needs: needs, want: failed(spec.ReasonPidsLimit, "E4003", 2, -1), also: atLimit},
		{name: "forks beyond the limit, survived", command: sh(survived + "exit 0"), resources: limit, needs: needs, want: exited(0), also: tried},
		{name: "forks beyond the limit, and failed", command: sh(survived + "exit 3"), resources: limit, needs: needs, want: failed(spec.ReasonPidsLimit, "E4003", 3, -1), also: atLimit},
		{name: "forks beyond the limit, and aborted", command: sh(survived + "kill -ABRT $$"), resources: limit, needs: needs, want: failed(spec.ReasonPidsLimit, "E4003", -1, 6), also: atLimit},
		{name: "threads beyond the limit", command: payload("threads", "40"), resources: limit, needs: needs, want: failed(spec.ReasonPidsLimit, "E4003", 2, -1), also: atLimit},
		{name: "threads within the limit", command: payload("threads", "12"), resources: object{"max_pids": 60}, needs: needs, want: exited(0)},
		{name: "fork bomb", command: sh("f() { f | f & }; f; sleep 1000"), resources: limit, needs: needs, want: timedOut(-1, 15),
			request: object{"timeout_ms": ms(2 * time.Second), "grace_ms": 60000}, also: nearLimit, // so long that it is there on a busy machine
			or: []verdict{failed(spec.ReasonPidsLimit, "E4003", 2, -1)}}, // the bomb was quicker than the shell's own fork
		{name: "few processes, failed", command: sh("exit 1"), resources: limit, needs: needs, want: exited(1)},
	}
}

func disks() []row {
	limit := object{"disk_bytes": mib}
	in := func(key, path string) func(*testing.T, *spec.Response) {
		return func(t *testing.T, r *spec.Response) {
			list, _ := detail(t, r, key).([]any)
			if len(list) != 1 || list[0] != path {
				t.Errorf("%s: %v, want %s", key, list, path)
			}
		}
	}
	full := func(exit, signal int) verdict { return failed(spec.ReasonDiskLimit, "E4004", exit, signal) }
	var rows []row
	for _, path := range []string{"/tmp", "/workspace", "/var/tmp", "/run", "/dev/shm"} {
		rows = append(rows,
			row{name: path + " full of bytes", command: payload("write", "8", path+"/x"), resources: limit, want: full(9, -1), also: in("full_of_bytes", path)},
			row{name: path + " full of inodes", command: payload("inodes", "0", path), resources: limit, want: full(9, -1), also: in("full_of_inodes", path)})
	}
	return append(rows,
		row{name: "a full disk, and content", command: sh("/payload act write 8 /tmp/x; exit 0"), resources: limit, want: exited(0), also: warned("/tmp had no space left")},
		row{name: "a full disk, tidied up", command: sh("/payload act write 8 /tmp/x; rm /tmp/x; exit 3"), resources: limit, want: exited(3)},
		row{name: "a full disk through a mapping", command: payload("map-file", "8"), resources: object{"disk_bytes": mib, "rlimits": object{"fsize": 1 << 30}}, want: full(2, -1), also: in("full_of_bytes", "/tmp")},
		row{name: "a full disk at the deadline", command: sh("/payload act write 8 /tmp/x; sleep 1000"), resources: limit, request: object{"timeout_ms": ms(time.Second), "grace_ms": 60000}, want: timedOut(-1, 15)},
		row{name: "a disk within its size", command: sh("head -c 1000000 /dev/zero >/tmp/x; exit 1"), resources: limit, want: exited(1)},
		row{name: "the root cannot be written", command: sh("(: >/x) 2>/dev/null || exit 7"), want: exited(7)},
	)
}

func outputs() []row {
	counts := func(total, kept int64) func(*testing.T, *spec.Response) {
		return func(t *testing.T, r *spec.Response) {
			if have, want := r.Output.Stdout, (spec.StreamCount{BytesTotal: total, BytesKept: kept, Truncated: kept < total}); have != want {
				t.Errorf("have %+v, want %+v", have, want)
			}
		}
	}
	keep := func(n int, policy string) object { return object{"max_output_bytes": n, "output_policy": policy} }
	plain := func(r *spec.Response) bool { return r.StdoutEncoding == "" }
	utf := func(kept int64) func(*testing.T, *spec.Response) {
		return func(t *testing.T, r *spec.Response) {
			counts(6, kept)(t, r)
			if !plain(r) {
				t.Errorf("encoding %q", r.StdoutEncoding)
			}
		}
	}
	long, huge := int64(300*mib/slow()), int64(4096*mib/slow())
	return []row{
		{name: "truncate", command: sh("printf 0123456789"), resources: keep(4, "truncate"), want: exited(0), stdout: text("0123"), also: counts(10, 4)},
		{name: "tail", command: sh("printf 0123456789"), resources: keep(4, "tail"), want: exited(0), stdout: text("6789"), also: counts(10, 4)},
		{name: "kill", command: sh("printf 01234; sleep 1000"), resources: keep(4, "kill"), want: tooMuch, stdout: text("0123")},
		{name: "kill, exactly as much", command: sh("printf 0123"), resources: keep(4, "kill"), want: exited(0), stdout: text("0123"), also: counts(4, 4)},
		{name: "kill, on stderr", command: sh("printf 01234 >&2; sleep 1000"), resources: keep(4, "kill"), want: tooMuch, stdout: text("")},
		{name: "kill, without end", command: sh("while :; do printf xxxxxxxx; done"), resources: keep(1000, "kill"), want: tooMuch, stdout: text(strings.Repeat("x", 1000))},
		{name: "no output allowed, kill", command: sh("printf x; sleep 1000"), resources: keep(0, "kill"), want: tooMuch, stdout: text("")},
		{name: "one line of 300 MB", command: payload("print", strconv.FormatInt(long, 10)), resources: keep(1000, "truncate"), want: exited(0), stdout: text(strings.Repeat("x", 1000)), also: counts(long, 1000)},
		{name: "4 GiB", command: payload("print", strconv.FormatInt(huge, 10)), resources: keep(1000, "truncate"), request: object{"timeout_ms": ms(2 * time.Minute)},
			want: exited(0), stdout: text(strings.Repeat("x", 1000)), also: counts(huge, 1000)},
		{name: "one line of 300 MB, tail", command: payload("print", strconv.FormatInt(long, 10)), resources: keep(1000, "tail"), want: exited(0), stdout: text(strings.Repeat("x", 1000)), also: counts(long, 1000)},
		{name: "UTF-8 cut at its end", command: payload("raw", `aa\u20acb`), resources: keep(4, "truncate"), want: exited(0), stdout: text("aa"), also: utf(2)},
		{name: "UTF-8 cut at its beginning", command: payload("raw", `b\u20acaa`), resources: keep(4, "tail"), want: exited(0), stdout: text("aa"), also: utf(2)},
		{name: "no UTF-8 at the cut", command: payload("raw", `aa\xff\xffbb`), resources: keep(4, "truncate"), want: exited(0), stdout: text("YWH//w=="), also: counts(6, 4)},
		{name: "output and an exit code", command: sh("printf 0123456789; exit 9"), resources: keep(4, "truncate"), want: exited(9), stdout: text("0123")},
		{name: "output and a signal", command: sh("printf 0123456789; kill -SEGV $$"), resources: keep(4, "tail"), want: signaled(syscall.SIGSEGV), stdout: text("6789")},
	}
}
