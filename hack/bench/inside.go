package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/bench"
	"github.com/capsule-run/capsule/supervisor/client"
)

// work is the program that runs inside: it waits, writes, or counts its own time
// on the processor, which the load of the machine changes less than the clock, and
// in which its own start is not. With a second word it first enters a filter or a
// ruleset of Landlock that allows everything: what the kernel takes for one at all.
const work = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static char block[65536];
static long long used(int who) {
  struct rusage u;
  getrusage(who, &u);
  return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL;
}
static int behind(const char *wall) {
  struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  struct sock_fprog program = {1, &allow};
  struct landlock_ruleset_attr handled = {.handled_access_fs = (1 << 13) - 1};
  struct landlock_path_beneath_attr all = {.allowed_access = (1 << 13) - 1, .parent_fd = open("/", O_PATH)};
  long rules;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
  if (!strcmp(wall, "filter")) return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
  rules = syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
  if (rules < 0 || syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &all, 0)) return -1;
  return syscall(SYS_landlock_restrict_self, rules, 0);
}
static long long spent(void) { return used(RUSAGE_SELF) + used(RUSAGE_CHILDREN); }
int main(int argc, char **argv) {
  long long before;
  const char *what = argc > 1 ? argv[1] : "";
  if (!strcmp(what, "wait")) for (;;) pause();
  if (!strcmp(what, "write")) {
    memset(block, 'x', sizeof block);
    long left = atol(argv[2]);
    while (left > 0) {
      long n = write(1, block, left < (long)sizeof block ? left : (long)sizeof block);
      if (n <= 0) return 1;
      left -= n;
    }
    return 0;
  }
  if (argc > 2 && behind(argv[2])) return 3;
  before = spent();
  if (!strcmp(what, "compute")) {
    uint64_t x = 88172645463325252u;
    for (long i = 0; i < 30000000; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; }
    if (x == 0) return 1;
  } else if (!strcmp(what, "getppid")) {
    for (long i = 0; i < 1000000; i++) syscall(SYS_getppid);
  } else if (!strcmp(what, "files")) {
    struct stat st;
    for (long i = 0; i < 30000; i++) {
      int fd = open("/usr/bin/env", O_RDONLY);
      if (fd < 0 || fstat(fd, &st) || read(fd, block, 4096) <= 0 || close(fd)) return 1;
    }
  } else if (!strcmp(what, "memory")) {
    for (long i = 0; i < 50; i++) {
      char *p = mmap(0, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (p == MAP_FAILED) return 1;
      for (long k = 0; k < 8 << 20; k += 4096) p[k] = 1;
      munmap(p, 8 << 20);
    }
  } else if (!strcmp(what, "processes")) {
    for (long i = 0; i < 300; i++) {
      pid_t pid = fork();
      if (pid == 0) _exit(0);
      if (pid < 0 || waitpid(pid, 0, 0) != pid) return 1;
    }
  } else return 2;
  printf("%lld\n", spent() - before);
  return 0;
}
`

// overheadRow is what one kind of work loses inside.
type overheadRow struct {
	Name    string        `json:"name"`
	Does    string        `json:"does"`
	Native  time.Duration `json:"native_ns"`
	Sandbox time.Duration `json:"sandbox_ns"`
	Ratio   float64       `json:"ratio"`
	// Filter and Landlock are multiples of Native, outside: behind a filter and behind
	// a ruleset that allow everything. 0: the kernel has none.
	Filter   float64 `json:"filter"`
	Landlock float64 `json:"landlock"`
}

// repeats of everything in the sections about what happens inside.
const repeats = 9

func (f *field) overhead(ctx context.Context) ([]overheadRow, error) {
	rows := []overheadRow{
		{Name: "compute", Does: "30 million steps of an integer generator"},
		{Name: "getppid", Does: "a million of the cheapest system call"},
		{Name: "files", Does: "30,000 times open, fstat, read, close"},
		{Name: "memory", Does: "400 MiB of fresh pages, touched"},
		{Name: "processes", Does: "300 times fork, exit, wait"},
	}
	c, err := client.Dial(ctx, f.daemon.address)
	if err != nil {
		return nil, err
	}
	defer c.Close() // nothing is under way
	for i := range rows {
		row := &rows[i]
		var native, inside []time.Duration
		behind := map[string][]time.Duration{}
		for range repeats {
			n, err := f.outside(ctx, row.Name)
			if err != nil {
				return nil, err
			}
			native = append(native, n)
			for _, wall := range []string{"filter", "landlock"} {
				if n, err := f.outside(ctx, row.Name, wall); err == nil {
					behind[wall] = append(behind[wall], n)
				}
			}
			r, err := c.Run(ctx, &api.StartRequest{Request: f.request(nil, f.program("work"), row.Name)})
			if err == nil {
				err = bench.Succeeded(r)
			}
			if err != nil {
				return nil, err
			}
			said, err := r.StdoutBytes()
			if err != nil {
				return nil, err
			}
			if n, err = nanoseconds(string(said)); err != nil {
				return nil, err
			}
			inside = append(inside, n)
		}
		row.Native, row.Sandbox = bench.Median(native), bench.Median(inside)
		row.Ratio = float64(row.Sandbox) / float64(row.Native)
		for wall, ratio := range map[string]*float64{"filter": &row.Filter, "landlock": &row.Landlock} {
			if len(behind[wall]) > 0 {
				*ratio = float64(bench.Median(behind[wall])) / float64(row.Native)
			}
		}
	}
	return rows, nil
}

// outside is what the program says of its work without a sandbox.
func (f *field) outside(ctx context.Context, args ...string) (time.Duration, error) {
	out, err := exec.CommandContext(ctx, f.program("work"), args...).Output()
	if err != nil {
		return 0, err
	}
	return nanoseconds(string(out))
}

func nanoseconds(said string) (time.Duration, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(said), 10, 64)
	return time.Duration(n), err
}

// outputRow is how fast the output of a command is taken.
type outputRow struct {
	Name string `json:"name"`
	// MiBPerSecond and its multiple of the first row's.
	MiBPerSecond float64 `json:"mib_per_second"`
	Ratio        float64 `json:"ratio"`
}

// outputBytes is what the command writes.
const outputBytes = 1 << 30

func (f *field) output(ctx context.Context) ([]outputRow, error) {
	c, err := client.Dial(ctx, f.daemon.address)
	if err != nil {
		return nil, err
	}
	defer c.Close() // nothing is under way
	size := strconv.Itoa(outputBytes)
	request := f.request(nil, f.program("work"), "write", size)
	ways := []struct {
		name string
		run  func() error
	}{
		{"a plain pipe, read and dropped", func() error { return f.plainPipe(ctx, size) }},
		{"captured: the first MiB kept, all counted", func() error {
			r, err := c.Run(ctx, &api.StartRequest{Request: request})
			return counted(r, err)
		}},
		{"streamed to a client that holds nothing up", func() error {
			started, err := c.Start(ctx, &api.StartRequest{Request: request})
			if err != nil {
				return err
			}
			if err := c.Attach(ctx, started.ID, &api.AttachOptions{Stdout: io.Discard, Stderr: io.Discard}); err != nil {
				return err
			}
			return counted(c.Wait(ctx, started.ID))
		}},
		{"streamed to a client, every byte", func() error {
			started, err := c.Start(ctx, &api.StartRequest{Request: request})
			if err != nil {
				return err
			}
			if err := c.Attach(ctx, started.ID, &api.AttachOptions{Stdout: io.Discard, Stderr: io.Discard, Hold: true}); err != nil {
				return err
			}
			return counted(c.Wait(ctx, started.ID))
		}},
	}
	rows := make([]outputRow, len(ways))
	speeds := make([][]float64, len(ways))
	for range 3 {
		for i, w := range ways {
			start := time.Now()
			if err := w.run(); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			speeds[i] = append(speeds[i], outputBytes/(1<<20)/time.Since(start).Seconds())
		}
	}
	for i, w := range ways {
		rows[i] = outputRow{Name: w.name, MiBPerSecond: bench.Median(speeds[i])}
		rows[i].Ratio = rows[i].MiBPerSecond / rows[0].MiBPerSecond
	}
	return rows, nil
}

// counted is an error unless every byte was seen.
func counted(r *spec.Response, err error) error {
	if err == nil {
		err = bench.Succeeded(r)
	}
	if err == nil && (r.Output == nil || r.Output.Stdout.BytesTotal != outputBytes) {
		err = errors.New("not every byte was counted")
	}
	return err
}

// plainPipe reads what the command writes and drops it.
func (f *field) plainPipe(ctx context.Context, size string) error {
	cmd := exec.CommandContext(ctx, f.program("work"), "write", size)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	total := 0
	for buffer := make([]byte, 64<<10); err == nil; {
		var n int
		n, err = out.Read(buffer)
		total += n
	}
	if err == io.EOF {
		err = nil
	}
	if err = errors.Join(err, cmd.Wait()); err == nil && total != outputBytes {
		err = fmt.Errorf("%d bytes came through the pipe", total)
	}
	return err
}
