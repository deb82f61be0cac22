package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// TestExitStatus compares the exit status in each mode of output.
func TestExitStatus(t *testing.T) {
	c := begin(t)
	for _, v := range []struct {
		args []string
		code int
	}{
		{[]string{"--", "true"}, 0},
		{[]string{"--", "sh", "-c", "exit 42"}, 42},
		{[]string{"--", "sh", "-c", "kill -TERM $$"}, 143},
		{[]string{"-t", "100", "--grace", "0", "--", "sleep", "1000"}, 124},
		{[]string{"--no-such-flag", "--", "true"}, 125},
		{[]string{"--user", "root", "--", "true"}, 125},
		{[]string{"--", "/usr"}, 126},
		{[]string{"--", "no-such-program"}, 127},
	} {
		human := c.human(v.args...)
		if human.code != v.code || human.out != "" || (v.code < 124) != (human.complaints() == "") {
			t.Errorf("%q: exit %d, want %d; stdout %q, stderr %q", v.args, human.code, v.code, human.out, human.stderr)
		}
		if o := c.runFlags(v.args...); o.code != v.code {
			t.Errorf("%q with -o json: exit %d, want %d", v.args, o.code, v.code)
		}
		if o := c.runFlags(append([]string{"--exit-code-mode=envelope"}, v.args...)...); o.code != 0 {
			t.Errorf("%q in an envelope: exit %d", v.args, o.code)
		}
	}
}

// TestFlags holds what a command sees against the flags.
func TestFlags(t *testing.T) {
	const minimum = "HOME=/workspace\nLANG=C.UTF-8\nPATH=" + pathInside + "\n"
	for _, v := range []struct {
		name   string
		args   []string
		stdout string
	}{
		{"environment", []string{"--", "sh", "-c", "env -u PWD -u OLDPWD -u SHLVL -u _ | sort"}, minimum},
		{"env", []string{"-e", "A=1", "--env=B=two words", "-e", "PATH=/usr/bin:/bin", "--", "sh", "-c", `echo "$A,$B,$PATH"`}, "1,two words,/usr/bin:/bin\n"},
		{"env of the caller", []string{"-e", "GIVEN", "-e", "A=1", "-e", "A=2", "--", "sh", "-c", `echo "$GIVEN,$A,$HIDDEN"`}, "from here,2,\n"},
		{"workdir", []string{"-w", "/tmp", "--", "pwd"}, "/tmp\n"},
		{"default workdir", []string{"--", "sh", "-c", "pwd; stat -c %u:%g .; touch x && ls"}, "/workspace\n1000:1000\nx\n"},
		{"user", []string{"--", "sh", "-c", "id -u; id -g; id -un"}, "1000\n1000\ncapsule\n"},
		{"user 0", []string{"--user", "0", "--", "sh", "-c", "id -u; id -g; grep CapEff /proc/self/status; chown 1 /workspace 2>/dev/null; echo $?"}, "0\n0\nCapEff:\t0000000000000000\n1\n"},
		{"init", []string{"--", "sh", "-c", `[ $$ = 1 ] || echo second`}, "second\n"},
		{"no init", []string{"--no-init", "--", "sh", "-c", "echo $$"}, "1\n"},
		{"hostname", []string{"--hostname", "box", "--", "sh", "-c", "uname -n; cat /etc/hostname"}, "box\nbox\n"},
		{"default hostname", []string{"--", "uname", "-n"}, "capsule\n"},
		{"labels", []string{"--label", "a=b", "--label", "c=", "--", "echo", "fine"}, "fine\n"},
		{"rlimit", []string{"--rlimit", "nofile=77", "--", "sh", "-c", "ulimit -n; ulimit -c"}, "77\n0\n"},
		{"disk", []string{"--disk", "1M", "--", "sh", "-c", "head -c 4M /dev/zero >x 2>/dev/null; echo $?; stat -c %s x"}, "1\n1048576\n"},
		{"network", []string{"--", "sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '"}, "lo\n"},
		{"arguments", []string{"echo", "-n", "--json", "", "a b", "*"}, "-n --json  a b *\n"},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			c.env = []string{"GIVEN=from here", "HIDDEN=secret"}
			want := v.stdout
			if v.name == "arguments" {
				want = "--json  a b *" // echo's own -n
			}
			says := map[string]string{ // on stderr
				"no init": "capsule: warning: system calls that the filter refuses are not recorded in this execution: denials says nothing of them\n",
				"disk":    "capsule: warning: /workspace had no space left when the command ended\n",
			}[v.name]
			if o := c.human(v.args...); o.code != 0 || o.out != want || o.complaints() != says {
				t.Errorf("exit %d\nstdout %q\nwant   %q\nstderr %q", o.code, o.out, want, o.stderr)
			}
		})
	}
}

// TestBinds reads and writes what is bound, and looks at it from outside: what
// a sandbox writes belongs to the owner of the directory.
func TestBinds(t *testing.T) {
	c := begin(t)
	dir := c.directory()
	owner := os.Geteuid()
	if owner == 0 {
		owner = 4242
		if err := os.Chown(dir, owner, 4343); err != nil {
			t.Fatal(err)
		}
	}
	c.write(dir, "given", "of the host\n")
	for _, v := range []struct {
		name, script, stdout string
		args                 []string
	}{
		{"read-only", `cat $0/given; echo x 2>&- >$0/ro; echo $?; rm -f $0/given 2>&-; echo $?; touch $0 2>&-; echo $?`, "of the host\n2\n1\n1\n", []string{"--readonly", dir}},
		{"writable", `echo a >$0/a && mkdir $0/d && ln -s a $0/s && mv $0/a $0/b && stat -c %u:%g $0/b && chmod 600 $0/b && cat $0/s 2>&-; cat $0/b`, "1000:1000\na\n", []string{"--writable", dir}},
		{"elsewhere, read-only", `cat /mnt/in/given; echo x 2>&- >/mnt/in/ro; echo $?; ls $0 2>&-; echo $?`, "of the host\n2\n2\n", []string{"--bind", dir + ":/mnt/in"}},
		{"elsewhere, writable", `cd /data && echo e >e && cat e given`, "e\nof the host\n", []string{"--bind", dir + ":/data:rw"}},
		{"a file", `cat /f; echo more 2>&- >>/f; echo $?`, "of the host\n2\n", []string{"--bind", dir + "/given:/f"}},
		{"both, the inner writable", `echo i >$0/d/inner && echo x 2>&- >$0/ro; echo $?; cat $0/d/inner`, "2\ni\n", []string{"--readonly", dir, "--writable", dir + "/d"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			o := c.human(append(v.args, "--", "sh", "-c", v.script, dir)...)
			if o.code != 0 || o.out != v.stdout {
				t.Errorf("exit %d\nstdout %q\nwant   %q\nstderr %q", o.code, o.out, v.stdout, o.stderr)
			}
		})
	}
	for name, text := range map[string]string{"b": "a\n", "e": "e\n", "d/inner": "i\n", "given": "of the host\n"} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if st := info.Sys().(*syscall.Stat_t); name != "given" && int(st.Uid) != owner {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
		if b, err := os.ReadFile(path); string(b) != text {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if exists(filepath.Join(dir, "ro")) {
		t.Error("a read-only bind was written to")
	}
}

// TestRefusedSources names host paths that are never given to a sandbox.
func TestRefusedSources(t *testing.T) {
	c := begin(t)
	if o := c.human("--", "true"); o.code != 0 { // makes the state directory
		t.Fatal(o.stderr)
	}
	for _, path := range []string{"/", "/proc", "/sys", "/dev", "/run", "/boot", "/root", "/home", "/etc", stateDir(), filepath.Dir(stateDir()), scratch() + "/../x", "/no/such/path"} {
		o := c.run(object{"command": []string{"true"}, "isolation": object{"bind_mounts": []object{{"source": path, "destination": "/x"}}}})
		code := "E5002"
		if strings.Contains(path, "..") || strings.HasPrefix(path, "/no") || !exists(path) {
			code = "E1006"
		}
		o.is(t, want{spec.StatusError, spec.ReasonRefused, code, -1, -1, 125})
	}
}

// TestDryRun prints the plan and does nothing of it.
func TestDryRun(t *testing.T) {
	c := begin(t)
	o := c.human("--dry-run", "--hostname", "box", "--", "echo", "not printed")
	if o.code != 0 || o.complaints() != "" {
		t.Errorf("exit %d, stderr %q", o.code, o.stderr)
	}
	for _, step := range []string{"pivot_root", "sethostname", "box", "capset", "seccomp", "execve", `"not printed"`} {
		if !strings.Contains(o.out, step) {
			t.Errorf("the plan lacks %s", step)
		}
	}
	if again := c.human("--dry-run", "--hostname", "box", "--", "echo", "not printed"); again.code != 0 || strings.Count(again.out, "\n") != strings.Count(o.out, "\n") {
		t.Error("the second plan is another one")
	}
	if o := c.human("--dry-run", "--readonly", "/no/such/path", "--", "true"); o.code != 125 || !strings.Contains(o.stderr, "E1006") {
		t.Errorf("exit %d, stderr %q", o.code, o.stderr)
	}
}

// TestBundle takes the bundle of a running execution and has it explained.
func TestBundle(t *testing.T) {
	c := begin(t)
	l := c.running("--hostname", "box", "--", "sh", "-c", `trap 'exit 0' TERM; echo >"$READY"; while :; do sleep 0.01; done`)
	config := filepath.Join(stateDir(), "executions", c.ids[0], "bundle/config.json")
	var text []byte
	c.eventually("the bundle is written", func() bool {
		var err error
		text, err = os.ReadFile(config)
		return err == nil && bytes.HasSuffix(bytes.TrimSpace(text), []byte("}"))
	})
	if err := l.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	c.ended(l).is(t, exited(0))

	dir := c.directory()
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.write(dir, "config.json", string(text))
	o := c.finish(c.program("bundle", "explain", dir))
	if o.code != 0 || !strings.Contains(o.out, "execve") || !strings.Contains(o.out, "box") {
		t.Errorf("exit %d, stderr %q\n%s", o.code, o.stderr, o.out)
	}
	c.write(dir, "config.json", `{"ociVersion":"1.2.0"}`)
	if o := c.finish(c.program("bundle", "explain", dir)); o.code != 125 || !strings.Contains(o.stderr, "E2009") {
		t.Errorf("exit %d, stdout %.200q, stderr %q", o.code, o.out, o.stderr)
	}
}

// TestProfile wants a profile to set what the request leaves open.
func TestProfile(t *testing.T) {
	c := begin(t)
	o := c.run(object{"command": sh("i=0; while [ $i -lt 7000 ]; do echo 0123456789; i=$((i+1)); done")}, "-p", "high-security")
	if o.Status == spec.StatusError && o.Error.Code == "E4001" && os.Geteuid() != 0 {
		t.Skip("the limits of the profile need a delegated control group")
	}
	o.is(t, exited(0))
	if o.Output.Stdout != (spec.StreamCount{BytesTotal: 77000, BytesKept: 64 << 10, Truncated: true}) {
		t.Errorf("stdout %+v", o.Output.Stdout)
	}
	if o := c.runFlags("-p", "nosuch", "--", "true"); o.Error == nil || o.Error.Code != "E1004" || o.code != 125 {
		t.Errorf("exit %d, %+v", o.code, o.Error)
	}
}

// TestManyAtOnce runs some at the same time; each gets its own answer.
func TestManyAtOnce(t *testing.T) {
	c := begin(t)
	type call struct {
		text string
		o    outcome
	}
	results := make(chan call)
	const n = 8
	for i := range n {
		text := strings.Repeat("x", i+1)
		cmd := c.command("-t", decimal(int(ms(patient(30*time.Second)))), "--", "sh", "-c", "echo "+text+"; sleep 0.05; cat /proc/sys/kernel/hostname")
		go func() { results <- call{text, c.finish(cmd)} }()
	}
	for range n {
		if r := <-results; r.o.code != 0 || r.o.out != r.text+"\ncapsule\n" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", r.text, r.o.code, r.o.out, r.o.stderr)
		}
	}
}
