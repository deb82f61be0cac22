package main

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// requestOf runs the arguments and gives the request that reached the engine.
func requestOf(t *testing.T, args ...string) *spec.Request {
	t.Helper()
	b := newBench("")
	if code := b.run(args); code != 0 {
		t.Fatalf("run %q: exit %d: %s", args, code, b.errOut.String())
	}
	return b.engine.request
}

func TestFlagsMakeTheRequest(t *testing.T) {
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	profile := write("filter.json", " {\"defaultAction\":\"SCMP_ACT_ERRNO\"}\n")
	envFile := write("env", "# comment\n\nA=1\r\n  B= x y \nPRESENT\nMISSING\nC=a=b\n")
	cases := []struct {
		name string
		args string
		want func(*spec.Request)
	}{
		{"nothing", "ls", func(*spec.Request) {}},
		{"short timeout", "-t 5s ls", func(r *spec.Request) { r.TimeoutMS = 5000 }},
		{"bare milliseconds", "--timeout=1500 ls", func(r *spec.Request) { r.TimeoutMS = 1500 }},
		{"attached value", "-t2m ls", func(r *spec.Request) { r.TimeoutMS = 120000 }},
		{"attached with equals", "-m=64M ls", func(r *spec.Request) { r.Resources.MemoryBytes = 64 << 20 }},
		{"last one wins", "-m 64M -m 1GiB ls", func(r *spec.Request) { r.Resources.MemoryBytes = 1 << 30 }},
		{"grace", "--grace 0 ls", func(r *spec.Request) { r.GraceMS = 0 }},
		{"cpus", "--cpus 0.5 ls", func(r *spec.Request) { r.Resources.CPUQuota = ptr(0.5) }},
		{"shares", "--cpu 512 ls", func(r *spec.Request) { r.Resources.CPUShares = 512 }},
		{"cpu time", "--cpu-time 1s ls", func(r *spec.Request) { r.Resources.CPUTimeMS = ptr[int64](1000) }},
		{"output", "--max-output 1K --output-policy tail ls", func(r *spec.Request) {
			r.Resources.MaxOutputBytes, r.Resources.OutputPolicy = 1024, spec.OutputTail
		}},
		{"pids and disk", "--max-pids 7 --disk 1M ls", func(r *spec.Request) {
			r.Resources.MaxPids, r.Resources.DiskBytes = 7, 1<<20
		}},
		{"network", "--network ls", func(r *spec.Request) { r.Isolation.Network = true }},
		{"network as docker says it", "--network=none ls", func(*spec.Request) {}},
		{"switch turned off", "--network --network=false ls", func(*spec.Request) {}},
		{"workdir", "-w /tmp/ ls", func(r *spec.Request) { r.Isolation.WorkingDirectory = "/tmp" }},
		{"environment", "-e A=1 -e B= -e C=a,b=c -e PRESENT -e MISSING ls", func(r *spec.Request) {
			r.Environment = map[string]string{"A": "1", "B": "", "C": "a,b=c", "PRESENT": "value of PRESENT"}
		}},
		{"environment file", "--env-file " + envFile + " -e A=2 ls", func(r *spec.Request) {
			r.Environment = map[string]string{"A": "2", "B": " x y ", "PRESENT": "value of PRESENT", "C": "a=b"}
		}},
		{"labels", "--label a=b --label c ls", func(r *spec.Request) { r.Labels = map[string]string{"a": "b", "c": ""} }},
		{"relative paths", "--readonly . --writable ./x/../y --readonly /usr/ ls", func(r *spec.Request) {
			r.Isolation.ReadonlyPaths = []string{cwd, "/usr"}
			r.Isolation.WritablePaths = []string{filepath.Join(cwd, "y")}
		}},
		{"binds", "--bind a:/b --bind /c:/d/:rw --bind /e:/f:ro ls", func(r *spec.Request) {
			r.Isolation.BindMounts = []spec.BindMount{
				{Source: filepath.Join(cwd, "a"), Destination: "/b", Readonly: true},
				{Source: "/c", Destination: "/d"}, {Source: "/e", Destination: "/f", Readonly: true},
			}
		}},
		{"rootfs", "--rootfs img ls", func(r *spec.Request) { r.Isolation.Rootfs = ptr(filepath.Join(cwd, "img")) }},
		{"identity", "--user 0:0 --hostname box ls", func(r *spec.Request) {
			r.Isolation.User, r.Isolation.Hostname = "0:0", "box"
		}},
		{"seccomp name", "--seccomp strict ls", func(r *spec.Request) { r.Isolation.Seccomp = spec.Seccomp{Name: "strict"} }},
		{"seccomp file", "--seccomp " + profile + " ls", func(r *spec.Request) {
			r.Isolation.Seccomp = spec.Seccomp{Custom: []byte(`{"defaultAction":"SCMP_ACT_ERRNO"}`)}
		}},
		{"rlimits", "--rlimit nofile=10:20 --rlimit RLIMIT_STACK=unlimited ls", func(r *spec.Request) {
			r.Resources.Rlimits["nofile"] = spec.Rlimit{Soft: 10, Hard: 20}
			r.Resources.Rlimits["stack"] = spec.Rlimit{Soft: math.MaxUint64, Hard: math.MaxUint64}
		}},
		{"io", "--io read=10M --io write-ops=7 ls", func(r *spec.Request) {
			r.Resources.IO = &spec.IOLimits{ReadBytesPerSecond: ptr(int64(10 << 20)), WriteOpsPerSecond: ptr(int64(7))}
		}},
		{"no init", "--no-init ls", func(r *spec.Request) { r.Isolation.Init = false }},
		{"degraded", "--allow-degraded memory --allow-degraded pids ls", func(r *spec.Request) {
			r.Isolation.AllowDegraded = []string{"memory", "pids"}
		}},
		{"flags win over the profile", "-t 1s -p high-security --max-pids 9 ls", func(r *spec.Request) {
			if err := r.ApplyProfile("high-security"); err != nil {
				t.Fatal(err)
			}
			r.TimeoutMS, r.Resources.MaxPids = 1000, 9
		}},
		{"cluster", "-ivt 5s ls", func(r *spec.Request) { r.TimeoutMS = 5000 }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			want := spec.Default()
			want.Command = []string{"ls"}
			c.want(want)
			want.Complete()
			if got := requestOf(t, strings.Fields(c.args)...); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", got.Encode(), want.Encode())
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestWhereTheCommandBegins(t *testing.T) {
	cases := []struct{ args, command []string }{
		{[]string{"ls", "-l"}, []string{"ls", "-l"}},
		{[]string{"-t", "5s", "--", "ls", "-l"}, []string{"ls", "-l"}},
		{[]string{"--", "-weird"}, []string{"-weird"}},
		{[]string{"-i", "-"}, []string{"-"}},
		{[]string{"sh", "--", "-c"}, []string{"sh", "--", "-c"}},
		{[]string{"--", "--", "x"}, []string{"--", "x"}},
		{[]string{"ls", "--json", "--help", "-t", "x"}, []string{"ls", "--json", "--help", "-t", "x"}},
		{[]string{"json"}, []string{"json"}},
		{[]string{"help"}, []string{"help"}},
		{[]string{"-e", "--json", "sh"}, nil},
	}
	for _, c := range cases {
		inv, err := parse(c.args)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		if c.command != nil && !reflect.DeepEqual(inv.command, c.command) {
			t.Errorf("%q: command %q, want %q", c.args, inv.command, c.command)
		}
		if inv.jsonInput || inv.help {
			t.Errorf("%q: a word of the command or a value was read as a flag", c.args)
		}
	}
}

func TestRefusedFlags(t *testing.T) {
	cases := []struct {
		args string
		code fault.Code
		says string
	}{
		{"", fault.MissingField, "no command"},
		{"--tiemout 5 ls", fault.InvalidValue, "Did you mean --timeout?"},
		{"-timeout 5 ls", fault.InvalidValue, "Did you mean --timeout?"},
		{"--rm ls", fault.InvalidValue, "Leave it out"},
		{"--ro-bind / / ls", fault.InvalidValue, "--readonly"},
		{"--unshare-all ls", fault.InvalidValue, "Leave it out"},
		{"--chdir /tmp ls", fault.InvalidValue, "--workdir"},
		{"--uid 5 ls", fault.InvalidValue, "--user"},
		{"-u 0 ls", fault.InvalidValue, "--user"},
		{"--property=x ls", fault.InvalidValue, "--memory"},
		{"-it -- ls", fault.InvalidValue, "no terminal"},
		{"-x ls", fault.InvalidValue, "unknown flag -x"},
		{"-t", fault.MissingField, "needs an argument. -t, --timeout DURATION: wall clock"},
		{"-t soon ls", fault.InvalidValue, "--timeout"},
		{"-t 0 ls", fault.OutOfRange, "--timeout"},
		{"-m 64Q ls", fault.InvalidValue, "--memory"},
		{"-m 99999999999G ls", "", "--memory"},
		{"--cpus NaN ls", fault.InvalidValue, "--cpus N: ceiling in cores"},
		{"--cpus 1e999 ls", fault.InvalidValue, "--cpus"},
		{"--max-pids 1.5 ls", fault.InvalidValue, "--max-pids"},
		{"--output-policy drop ls", fault.InvalidValue, "--output-policy"},
		{"-e =x ls", fault.InvalidValue, "no name"},
		{"-e 1A=x ls", fault.InvalidValue, "--env"},
		{"-e A:x ls", fault.InvalidValue, "neither KEY=VALUE nor the name"},
		{"--env-file / ls", fault.IO, "flag --env-file: /: is a directory"},
		{"--label =x ls", fault.InvalidValue, "no name"},
		{"--readonly= ls", fault.InvalidPath, "empty"},
		{"--writable= ls", fault.InvalidPath, "empty"},
		{"--rootfs= ls", fault.InvalidPath, "empty"},
		{"--bind :/x ls", fault.InvalidPath, "empty"},
		{"--bind /x ls", fault.InvalidValue, "--readonly"},
		{"--bind /x:y ls", fault.InvalidPath, "not absolute"},
		{"--bind /x:/y:rx ls", fault.InvalidValue, "SRC:DEST"},
		{"--bind /x:/y:ro:z ls", fault.InvalidValue, "SRC:DEST"},
		{"-w sub ls", fault.InvalidPath, "inside the sandbox"},
		{"--user root ls", fault.InvalidValue, "--user"},
		{"--seccomp nosuch ls", fault.InvalidValue, "--seccomp"},
		{"--seccomp /nonexistent.json ls", fault.InvalidPath, "no such file"},
		{"--env-file /nonexistent ls", fault.InvalidPath, "no such file"},
		{"--io 10M ls", fault.InvalidValue, "read=SIZE"},
		{"--io read=fast ls", fault.InvalidValue, "--io"},
		{"--io read=0 ls", fault.OutOfRange, "--io"},
		{"--io read-ops=1.5 ls", fault.InvalidValue, "whole number"},
		{"--rlimit nofile ls", fault.InvalidValue, "NAME=SOFT"},
		{"--rlimit nofile=a ls", fault.InvalidValue, "NAME=SOFT"},
		{"--rlimit bogus=1 ls", fault.UnknownField, "--rlimit"},
		{"--allow-degraded memry ls", fault.InvalidValue, "Did you mean `memory`?"},
		{"--label k=\xff ls", fault.InvalidValue, "on stdin or in a file"},
		{"--network=bridge ls", fault.InvalidValue, "neither true nor false"},
		{"-p nosuch ls", fault.UnknownProfile, "nosuch"},
		{"--execution-id 7 ls", fault.InvalidValue, "UUID"},
		{"--execution-id 00000000-0000-4000-8000-00000000000A ls", fault.InvalidValue, "lower case"},
		{"-o yaml ls", fault.InvalidValue, "neither human nor table, json"},
		{"--exit-code-mode never ls", fault.InvalidValue, "neither payload nor envelope"},
		{"--exit-code-mode envelope ls", fault.InvalidValue, "needs --json"},
		{"--pretty ls", fault.InvalidValue, "needs --json"},
		{"-d --dry-run ls", fault.InvalidValue, "--detach cannot"},
		{"--embedded --address /s ls", fault.InvalidValue, "--embedded cannot"},
		{"--address= ls", fault.InvalidValue, "--address"},
	}
	for _, c := range cases {
		b := newBench("")
		code := b.run(strings.Fields(c.args))
		text := b.errOut.String()
		if code != spec.ExitRefused || b.out.String() != "" || b.engine.request != nil {
			t.Errorf("%s: exit %d, stdout %q, started %v", c.args, code, b.out.String(), b.engine.request != nil)
		}
		if !strings.HasPrefix(text, "capsule: "+string(c.code)) || !strings.Contains(text, c.says) {
			t.Errorf("%s: %q, want %s and %q", c.args, text, c.code, c.says)
		}
		if strings.Count(text, "\n") != 1 || strings.Contains(text, "schema request") ||
			strings.Contains(text, "one of") && strings.Contains(text, "Known here") {
			t.Errorf("%s: more than one problem, a remedy for documents, or one that repeats the message: %q", c.args, text)
		}
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	b := newBench("")
	b.run(strings.Fields("--bogus -t soon -m 1X --user root ls"))
	for _, want := range []string{"--bogus", "--timeout", "--memory"} {
		if !strings.Contains(b.errOut.String(), want) {
			t.Errorf("%s is not reported:\n%s", want, b.errOut.String())
		}
	}
}
