//go:build cgo && !noseccomp

package libseccomp

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestPrograms runs ordinary programs under the filter and compares what they
// print with what they must print. A program that is not installed is skipped.
func TestPrograms(t *testing.T) {
	cases := []struct {
		name, profile string
		need          []string
		script        string // for bash, in an empty directory
		want          string
	}{
		{"python threads, subprocess, asyncio, sqlite3, multiprocessing", "default", []string{"python3"}, `python3 - <<'E'
import threading, subprocess, asyncio, sqlite3, socket, tempfile, signal, time, multiprocessing, select, mmap, os, fcntl, resource
out=[]
ts=[threading.Thread(target=out.append,args=(i,)) for i in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
async def main():
    p=await asyncio.create_subprocess_exec("echo","sub",stdout=asyncio.subprocess.PIPE)
    o,_=await p.communicate()
    s=await asyncio.start_server(lambda r,w:(w.write(b"hi"),w.close()),"127.0.0.1",0)
    r,w=await asyncio.open_connection(*s.sockets[0].getsockname())
    d=await r.read(); w.close(); s.close()
    return o.decode().strip()+d.decode()
a=asyncio.run(main())
db=sqlite3.connect("x.db"); db.execute("create table t(a)"); db.execute("insert into t values(42)"); db.commit()
with multiprocessing.get_context("fork").Pool(2) as p: m=p.map(abs,[-1,-2])
hits=[]; signal.signal(signal.SIGALRM,lambda *_:hits.append(1)); signal.setitimer(signal.ITIMER_REAL,0.01); signal.pause()
infos=socket.getaddrinfo("localhost",80)
print(sorted(out)==list(range(8)),a,db.execute("select a from t").fetchone(),m,hits,len(infos)>0,subprocess.run(["sh","-c","echo x|tr x y"],capture_output=True).stdout)
E`, "True subhi (42,) [1, 2] [1] True b'y\\n'\n"},
		{"node with worker threads", "default", []string{"node"}, `node -e '
const {Worker}=require("worker_threads"),cp=require("child_process"),fs=require("fs"),dns=require("dns"),net=require("net");
fs.writeFileSync("f","x"); 
const w=new Worker("require(\"worker_threads\").parentPort.postMessage(6*7)",{eval:true});
w.on("message",m=>{const s=net.createServer(c=>c.end("net")).listen(0,"127.0.0.1",()=>{
 net.connect(s.address().port,"127.0.0.1").on("data",d=>{console.log(m,cp.execSync("echo sub").toString().trim(),fs.readFileSync("f","utf8"),d.toString());s.close();});});});'`, "42 sub x net\n"},
		{"gcc", "default", []string{"gcc"}, `printf '#include <stdio.h>\nint main(){puts("built");}' >x.c && gcc -O1 x.c -o x && ./x`, "built\n"},
		{"timers, queues and semaphores in C, with the thread sanitizer", "default", []string{"gcc"}, `cat >x.c <<'E'
#include <pthread.h>
#include <stdio.h>
#include <mqueue.h>
#include <signal.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
static void *f(void *a) { return a; }
int main() {
	pthread_t t; timer_t id; sigset_t s; siginfo_t si;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
	struct itimerspec soon = {.it_value = {0, 1000000}};
	sigemptyset(&s); sigaddset(&s, SIGUSR1); sigaddset(&s, SIGUSR2); sigprocmask(SIG_BLOCK, &s, 0);
	pthread_create(&t, 0, f, 0); pthread_join(t, 0);
	int made = timer_create(CLOCK_MONOTONIC, &ev, &id), set = timer_settime(id, 0, &soon, 0);
	int fired = sigwaitinfo(&s, &si) == SIGUSR2;
	sigqueue(getpid(), SIGUSR1, (union sigval){1});
	int queued = sigwaitinfo(&s, &si) == SIGUSR1 && si.si_value.sival_int == 1;
	int sem = semget(IPC_PRIVATE, 1, 0600), shm = shmget(IPC_PRIVATE, 4096, 0600);
	semctl(sem, 0, IPC_RMID); shmctl(shm, IPC_RMID, 0);
	printf("%d %d %d %d %d %d %d %d\n", made, set, fired, queued, sem >= 0, shm >= 0,
		timerfd_create(CLOCK_REALTIME, 0) > 0, signalfd(-1, &s, 0) > 0);
}
E
gcc -fsanitize=thread x.c -o tsan && gcc x.c -o x && ./x && ./tsan`, "0 0 1 1 1 1 1 1\n0 0 1 1 1 1 1 1\n"},
		{"rustc", "default", []string{"rustc"}, `echo 'fn main(){let h=std::thread::spawn(||42);println!("{}",h.join().unwrap());}' >x.rs && rustc x.rs && ./x`, "42\n"},
		{"go run", "default", []string{"go"}, `printf 'package main\nimport ("fmt";"os/exec")\nfunc main(){c:=make(chan int);go func(){c<-42}();o,_:=exec.Command("echo","sub").Output();fmt.Print(<-c," ",string(o))}' >x.go && go run x.go`, "42 sub\n"},
		{"git", "default", []string{"git"}, `export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 && git init -q a && cd a && echo 1 >f && git add f && git -c user.name=x -c user.email=x commit -qm one && cd .. && git clone -q a b && git -C b log --format=%s && git -C b gc -q`, "one\n"},
		{"bash pipeline", "default", nil, `seq 10000 | sort -rn | grep -v 7 | awk '{s+=$1} END {print s}' && (sleep 0 & wait; trap "echo trapped" USR1; kill -USR1 $BASHPID; :)`, "30786922\ntrapped\n"},
		{"tar and xz", "default", []string{"tar", "xz"}, `mkdir d && seq 5000 >d/f && ln d/f d/g && mkfifo d/p && ln -s f d/l && tar cf - d | xz -T2 | xz -d | tar tf - | sort | tr '\n' ' '`, "d/ d/f d/g d/l d/p "},
		{"perl", "default", []string{"perl"}, `perl -e 'use POSIX; my $p=fork; if(!$p){exit 7} waitpid $p,0; alarm 1; $SIG{ALRM}=sub{print "alarm\n"}; POSIX::pause(); print $?>>8, "\n"'`, "alarm\n7\n"},
		{"java", "default", []string{"java"}, `java -version 2>&1 | grep -c -i version`, "1\n"},
		{"coreutils", "default", nil, `touch a && cp -a a b && mv b c && chmod 600 c && ls && stat -c %a c && timeout 5 nice -n 5 env -i /bin/echo ok && df . >/dev/null && sync -d a`, "a\nc\n600\nok\n"},
		{"python under network lists interfaces", "network", []string{"python3"}, `python3 -c 'import socket; print("lo" in [n for _,n in socket.if_nameindex()])'`, "True\n"},
		{"node under network lists interfaces", "network", []string{"node"}, `node -e 'console.log("lo" in require("os").networkInterfaces())'`, "true\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			for _, program := range tc.need {
				if _, err := exec.LookPath(program); err != nil {
					t.Skipf("%s is not installed", program)
				}
			}
			cmd := child(t, "exec", tc.profile, "bash", "-c", tc.script)
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != tc.want {
				t.Errorf("%v, printed %q, want %q", err, out, tc.want)
			}
		})
	}
}

// TestStrict runs single-process programs under the strict profile, and
// checks that a second process and a socket are refused.
func TestStrict(t *testing.T) {
	dir := t.TempDir()
	input := filepath.Join(dir, "input")
	if err := os.WriteFile(input, []byte("b\na\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ args, want string }{
		{"cat " + input, "b\na\n"},
		{"head -n 1 " + input, "b\n"},
		{"wc -c " + input, "4 " + input + "\n"},
		{"expr 6 * 7", "42\n"},
		{"grep a " + input, "a\n"},
	} {
		out, err := child(t, "exec", "strict", strings.Fields(tc.args)...).CombinedOutput()
		if err != nil || string(out) != tc.want {
			t.Errorf("%s: %v, printed %q, want %q", tc.args, err, out, tc.want)
		}
	}
	out, err := child(t, "exec", "strict", "bash", "-c", "/bin/true; echo survived").CombinedOutput()
	if err == nil && strings.Contains(string(out), "survived") && !strings.Contains(string(out), "not permitted") {
		t.Errorf("a shell had a child under strict: %q", out)
	}
}

// TestForeignTable calls through the i386 table of a 64-bit process.
func TestForeignTable(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("only amd64 has this gate")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("gcc is not installed")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "x.c"), filepath.Join(dir, "x")
	text := `int main(){long r; __asm__ volatile("int $0x80":"=a"(r):"a"(20L)); return r > 0 ? 0 : 9;}`
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", source, "-o", program).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	cmd := child(t, "exec", "default", program)
	_ = cmd.Run() // The wait status says more than the error.
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGSYS {
		t.Errorf("int 0x80 ended with %v", cmd.ProcessState)
	}
}
