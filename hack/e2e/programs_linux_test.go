package e2e

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// TestPrograms runs what people run, under the default profile, and compares
// the output.
func TestPrograms(t *testing.T) {
	for _, p := range []struct {
		name    string
		needs   string
		command []string
		stdout  string
	}{
		{"python threads", "python3", python(`
import threading, queue
q = queue.Queue()
ts = [threading.Thread(target=lambda i=i: q.put(i * i)) for i in range(20)]
[t.start() for t in ts]; [t.join() for t in ts]
print(sum(q.get() for _ in ts))`), "2470\n"},
		{"python subprocess", "python3", python(`
import subprocess, multiprocessing
print(subprocess.run(["tr", "a-z", "A-Z"], input="hello", capture_output=True, text=True, check=True).stdout)
print(subprocess.check_output("echo $((6*7)) | cat", shell=True, text=True).strip())
with multiprocessing.Pool(2) as p: print(p.map(abs, [-1, -2, 3]))`), "HELLO\n42\n[1, 2, 3]\n"},
		{"python asyncio", "python3", python(`
import asyncio
async def double(i): await asyncio.sleep(0.001); return 2 * i
async def serve(r, w): w.write((await r.readline()).upper()); await w.drain(); w.close()
async def main():
    print(sum(await asyncio.gather(*map(double, range(50)))))
    s = await asyncio.start_server(serve, "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*s.sockets[0].getsockname())
    w.write(b"over the loopback\n"); print((await r.read()).decode(), end="")
    p = await asyncio.create_subprocess_exec("true"); print(await p.wait())
asyncio.run(main())`), "2450\nOVER THE LOOPBACK\n0\n"},
		{"python sqlite3", "python3", python(`
import sqlite3
d = sqlite3.connect("/workspace/x.db")
d.execute("pragma journal_mode=wal"); d.execute("create table t(a integer primary key, b text)")
with d: d.executemany("insert into t(b) values(?)", [(str(i),) for i in range(1000)])
d.close(); d = sqlite3.connect("/workspace/x.db")
print(d.execute("select count(*), sum(a), max(b) from t").fetchone(), d.execute("pragma integrity_check").fetchone()[0])`), "(1000, 500500, '999') ok\n"},
		{"python files", "python3", python(`
import tempfile, mmap, shutil, os, fcntl, random, ssl, ctypes, shelve, secrets
with tempfile.TemporaryFile() as f:
    f.write(b"x" * 8192); f.flush(); fcntl.flock(f, fcntl.LOCK_EX)
    m = mmap.mmap(f.fileno(), 0); m[5000] = 65; print(m[4999:5002])
os.makedirs("a/b/c"); open("a/b/c/d", "w").write("deep"); shutil.copytree("a", "z"); os.symlink("z", "s"); os.link("z/b/c/d", "l")
print(open("s/b/c/d").read(), os.stat("l").st_nlink, ctypes.CDLL(None).abs(-3), len(secrets.token_bytes(9)))`), "b'xAx'\ndeep 2 3 9\n"},
		{"node workers", "node", []string{"node", "-e", `
const {Worker} = require('worker_threads'), {execFileSync} = require('child_process'), fs = require('fs');
const one = n => new Promise((ok, no) => { const w = new Worker(
  'const {parentPort:p, workerData:n} = require("worker_threads"); let s = 0; for (let i = 0; i <= n; i++) s += i; p.postMessage(s)',
  {eval: true, workerData: n}); w.on('message', ok); w.on('error', no); });
(async () => {
  console.log(await Promise.all([10, 100, 1000].map(one)));
  await fs.promises.writeFile('f', 'x'.repeat(1000)); console.log((await fs.promises.stat('f')).size);
  console.log(execFileSync('echo', ['child']).toString().trim(), require('zlib').gunzipSync(require('zlib').gzipSync('packed')).toString());
})()`}, "[ 55, 5050, 500500 ]\n1000\nchild packed\n"},
		{"bash pipeline", "bash", []string{"bash", "-c", `
set -euo pipefail
seq 10000 | while read -r n; do echo "$n $((n % 7))"; done | sort -k2,2n -k1,1nr | awk '$2 == 3' | tee >(wc -l >count) | sed -n '1p;$p' | xargs
wait; while [ ! -s count ]; do sleep 0.01; done; cat count <(echo "substituted") <<<"unused"`}, "9999 3 3 3\n1429\nsubstituted\n"},
		{"tar and xz", "xz", sh(`
mkdir -p d/e && seq 5000 >d/e/numbers && ln -s numbers d/e/link && chmod 640 d/e/numbers
tar cf - d | xz -T2 >d.tar.xz && tar czf d.tar.gz d && rm -r d && tar xJf d.tar.xz && cksum <d/e/link && stat -c %a d/e/numbers && tar tzf d.tar.gz | wc -l`),
			"1163661111 23893\n640\n4\n"},
		{"perl", "perl", []string{"perl", "-MPOSIX", "-MData::Dumper", "-e", `
pipe(R, W); if (!fork) { print W join ",", map { $_ ** 2 } 1..5; exit } close W; print <R>, "\n"; wait;
open my $f, ">", "x" or die; print $f "a b c\n" x 3; close $f; my %h; open $f, "<", "x"; while (<$f>) { $h{$_}++ for split } print join(" ", map { "$_=$h{$_}" } sort keys %h), "\n";
$SIG{ALRM} = sub { print "alarm\n" }; alarm 1; POSIX::pause(); print ((getpwuid $<)[0], "\n")`}, "1,4,9,16,25\na=3 b=3 c=3\nalarm\ncapsule\n"},
		{"awk, sed, find and diff", "awk", sh(`
mkdir -p a/b && for i in 1 2 3; do echo $i >a/b/$i.txt; done && find a -name '*.txt' -print0 | xargs -0 cat | awk '{s += $1} END {print s}'
cp -a a c && sed -i s/2/two/ c/b/2.txt && { diff -r a c; true; } && date -u -d @0 +%F && echo 'scale=3; 1' | sha256sum | cut -c1-8`),
			"6\ndiff -r a/b/2.txt c/b/2.txt\n1c1\n< 2\n---\n> two\n1970-01-01\n959453a8\n"},
	} {
		t.Run(p.name, func(t *testing.T) {
			needPrograms(t, p.needs)
			c := begin(t)
			c.run(object{"command": p.command}).printed(t, p.stdout)
		})
	}
}

// roomy lets a program have more than the default where nothing is limited.
var roomy = []string{spec.LimitMemory, spec.LimitPids}

// TestJava wants a virtual machine that starts in the default memory limit.
func TestJava(t *testing.T) {
	needPrograms(t, "java")
	c := begin(t)
	o := c.run(object{"command": []string{"java", "-version"}, "resources": object{"memory_bytes": 512 << 20}, "isolation": object{"allow_degraded": roomy}})
	o.is(t, exited(0))
	if !strings.Contains(o.errors(), "version") {
		t.Errorf("stderr %q", o.errors())
	}
}

// TestCompiler compiles a program in the working directory and runs it there.
func TestCompiler(t *testing.T) {
	needPrograms(t, "gcc")
	c := begin(t)
	o := c.run(object{
		"command":   sh(`cat >x.c && gcc -O1 -o a.out x.c && ./a.out capsule`),
		"stdin":     "#include <stdio.h>\nint main(int n, char **v) { return printf(\"%s %d\\n\", v[1], n) < 0; }\n",
		"resources": object{"memory_bytes": 512 << 20}, "isolation": object{"allow_degraded": roomy}})
	o.printed(t, "capsule 2\n")
}

//go:embed testdata/signals.c
var signalsAndTimers string

// TestSignalsAndTimers runs testdata/signals.c.
func TestSignalsAndTimers(t *testing.T) {
	needPrograms(t, "gcc")
	c := begin(t)
	o := c.run(object{
		"command": sh(`cat >s.c && gcc -o s s.c -pthread -lrt && ./s`), "stdin": signalsAndTimers,
		"resources": object{"memory_bytes": 512 << 20}, "isolation": object{"allow_degraded": roomy}})
	o.printed(t, "ok\n")
}

// TestGit makes, changes and clones repositories; one is bound in from the host.
func TestGit(t *testing.T) {
	needPrograms(t, "git")
	c := begin(t)
	dir := c.directory()
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "of the host"}} {
		cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
		cmd.Env = []string{"HOME=" + dir, "PATH=" + pathInside, "GIT_CONFIG_NOSYSTEM=1"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	o := c.run(object{
		"command": sh(`set -e
git config --global user.name capsule; git config --global user.email capsule@localhost; git config --global --add safe.directory '*'
git init -q -b main made && cd made && echo one >f && git add f && git commit -q -m first && echo two >>f && git commit -qam second
git log --format=%s && git diff HEAD~1 --shortstat && cd .. && git clone -q made copy && git -C copy log --oneline | wc -l
git clone -q /repository/.git host && cd host && git log --format=%s && git commit -q --allow-empty -m 'of the sandbox' && git push -q origin main:pushed && git gc -q && git fsck --strict`),
		"isolation": object{"bind_mounts": []object{{"source": dir, "destination": "/repository", "readonly": false}}}})
	o.printed(t, "second\nfirst\n 1 file changed, 1 insertion(+)\n2\nof the host\n")
	if !exists(filepath.Join(dir, ".git/refs/heads/pushed")) {
		t.Error("the push did not reach the host")
	}
}

// TestGo builds and runs a program of the standard library with caches that
// belong to the host.
func TestGo(t *testing.T) {
	needPrograms(t, "go")
	if slow() > 1 || testing.Short() {
		t.Skip("compiling the standard library takes long")
	}
	c := begin(t)
	tool, err := filepath.EvalSymlinks(findProgram("go"))
	if err != nil {
		t.Fatal(err)
	}
	cache, path, source := c.directory(), c.directory(), c.directory()
	c.write(source, "go.mod", "module example.com/hello\n\ngo 1.21\n")
	c.write(source, "main.go", "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"hello from \" + os.Args[0][:4] + \"\\n\") }\n")
	c.run(object{
		"command":     sh(`"$0" run . && "$0" build -o /tmp/x . && /tmp/x`, tool),
		"environment": object{"GOCACHE": cache, "GOPATH": path, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOTELEMETRY": "off", "GOMAXPROCS": "2"},
		"timeout_ms":  patient(5 * time.Minute).Milliseconds(),
		"resources":   object{"memory_bytes": 1536 << 20, "max_pids": 300, "disk_bytes": 256 << 20},
		"isolation":   object{"allow_degraded": roomy, "writable_paths": []string{cache, path}, "readonly_paths": []string{source}, "working_directory": source}}).printed(t, "hello from /tmp\nhello from /tmp\n")
	if entries, err := os.ReadDir(cache); err != nil || len(entries) < 16 {
		t.Errorf("the cache has %d entries: %v", len(entries), err)
	}
}

// TestThreads makes as many threads as the limit allows in a runtime of its own.
func TestThreads(t *testing.T) {
	needPrograms(t, "python3")
	c := begin(t)
	const n = 80
	o := c.run(object{"command": python(`
import threading
b = threading.Barrier(` + strconv.Itoa(n+1) + `)
ts = [threading.Thread(target=b.wait) for _ in range(` + strconv.Itoa(n) + `)]
[t.start() for t in ts]; print(threading.active_count() - 1); b.wait(); [t.join() for t in ts]`)})
	o.printed(t, strconv.Itoa(n)+"\n")
	if m := o.Metrics.MaxPids; m != nil && *m != n+1 {
		t.Errorf("max_pids %d, want %d", *m, n+1)
	}
}
