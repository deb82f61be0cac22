package budget

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/seccomp/calls"
	"github.com/capsule-run/capsule/shim/shimapi"
)

// traceOptions make the kernel stop every process and thread of the tree at its
// first instruction, at execve and at its end, and end all with the tracer.
const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE |
	unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACEEXIT | unix.PTRACE_O_EXITKILL

// tracee is one process of the tree.
type tracee struct {
	role   string
	faults int64 // page faults that needed no disk, as last read
	looked bool  // a shim that has looked whether its request is there
	told   bool  // a shim of the pool that has said that its sandbox is ready
	waits  bool  // and that waits for its execution since
	taken  bool  // is that of an execution, and was prepared for it
}

// ahead begins the role of what a daemon starts for an execution that is not there
// yet, see tracer.take.
const ahead = "ahead: "

// isAhead tells whether a role is that of a process that waits for an execution.
func isAhead(role string) bool { return strings.HasPrefix(role, ahead) }

// tracer counts what a tree of processes does. One goroutine, locked to its
// thread, traces: the kernel knows a tracer by its thread.
type tracer struct {
	root int
	done chan struct{} // closed when the tree has ended

	mu        sync.Mutex // guards what follows
	changed   *sync.Cond // a process ended, or the trace did
	processes map[int]*tracee
	threads   map[int]int      // living tid to its pid
	coming    map[int]bool     // cloned, and not yet seen
	seen      map[int]bool     // have had their first stop, which may come before the event of whoever cloned them
	ended     map[string]int64 // page faults of processes that have ended, by role
	sending   map[int]bool     // threads of a starter in the call that hands over a request
	unread    int              // requests that were handed over, less the shims that have looked for one
	held      []int            // shims that looked before that, see handed
	pooled    bool             // what the root starts is for a later execution
	reading   map[int]bool     // threads of the root in read
	heard     bool             // the root knows of the sandbox that was prepared last
	counted   counts
	status    syscall.WaitStatus
	err       error
}

// trace starts a program and follows it until its tree has ended. pooled: it is a
// daemon that starts what it starts ahead, for a later execution.
func trace(argv, env []string, files []uintptr, pooled bool) (*tracer, error) {
	t := &tracer{pooled: pooled, done: make(chan struct{}), processes: map[int]*tracee{}, threads: map[int]int{}, coming: map[int]bool{}, seen: map[int]bool{}, ended: map[string]int64{}, sending: map[int]bool{}, reading: map[int]bool{}, counted: counts{}}
	t.changed = sync.NewCond(&t.mu)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the trace
		defer close(t.done)
		pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Dir: "/", Env: env, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true}})
		if err == nil {
			t.root = pid
			err = t.adopt(pid)
		}
		started <- err
		if err != nil {
			return
		}
		err = t.follow()
		t.mu.Lock()
		t.err = err
		t.changed.Broadcast()
		t.mu.Unlock()
	}()
	return t, <-started
}

// adopt takes the stop of the first process at its execve and lets it go.
func (t *tracer) adopt(pid int) error {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("the program did not stop: %#x", status)
	}
	if err := syscall.PtraceSetOptions(pid, traceOptions); err != nil {
		return err
	}
	t.processes[pid] = &tracee{role: roleOf(pid, "")}
	t.threads[pid] = pid
	t.counted.of(t.processes[pid].role).Starts++
	t.counted.of(t.processes[pid].role).Threads++
	return syscall.PtraceSyscall(pid, 0)
}

// follow handles every stop until no tracee is left. The thread may have other
// children, so that nobody is left to wait for is not what ends it.
func (t *tracer) follow() error {
	for t.living() {
		var status syscall.WaitStatus
		// Of this thread alone: children of the others are not ours to wait for.
		tid, err := syscall.Wait4(-1, &status, syscall.WALL|unix.WNOTHREAD, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return err
		}
		t.mu.Lock()
		signal := t.stopped(tid, status)
		early := slices.Contains(t.held, tid)
		free := t.released()
		t.mu.Unlock()
		if !status.Exited() && !status.Signaled() && !early {
			if err := proceed(tid, signal); err != nil {
				return err
			}
		}
		for _, tid := range free {
			if err := proceed(tid, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// proceed lets a stopped thread go on to its next stop.
func proceed(tid, signal int) error {
	// ESRCH: it was killed in the meantime, and its end comes next.
	if err := syscall.PtraceSyscall(tid, signal); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("continue %d: %w", tid, err)
	}
	return nil
}

// handed follows the calls with which a starter hands a request over and its shim
// looks for one. A shim that looks too early uses the time to walk its way once,
// which is work that depends on who is faster: it is held until the request is there.
func (t *tracer) handed(tid int, p *tracee, name string, entry bool) {
	starter := p.role == "capsulectl" || p.role == "capsuled"
	switch {
	case starter && entry:
		t.sending[tid] = name == "sendmsg"
	case starter && t.sending[tid]:
		t.sending[tid] = false
		t.unread++
	case p.role == "capsule-shim" && entry && name == "ppoll" && !p.looked:
		p.looked = true
		t.held = append(t.held, tid)
	}
}

// released are the held shims whose request is there, or whose starter is gone.
func (t *tracer) released() (free []int) {
	for len(t.held) > 0 && (t.unread > 0 || t.processes[t.root] == nil) {
		free = append(free, t.held[0])
		t.held = t.held[1:]
		t.unread--
	}
	return free
}

func (t *tracer) living() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.threads) > 0 || len(t.coming) > 0
}

// stopped accounts for one stop and returns the signal to deliver.
func (t *tracer) stopped(tid int, status syscall.WaitStatus) int {
	if status.Exited() || status.Signaled() {
		t.gone(tid, status)
		return 0
	}
	pid := t.threads[tid]
	if pid == 0 {
		// The first stop is the kernel's own SIGSTOP, which is not for the tracee.
		t.born(tid)
		return 0
	}
	p := t.processes[pid]
	sig := status.StopSignal()
	switch {
	case sig == syscall.SIGTRAP|0x80:
		call := callOf(tid)
		if call.entry {
			t.counted.of(p.role).calls[call.name]++
		}
		t.handed(tid, p, call.name, call.entry)
		if t.pooled {
			t.prepared(pid, tid, p, call)
		}
		return 0
	case sig != syscall.SIGTRAP:
		return int(sig)
	}
	switch status.TrapCause() {
	case unix.PTRACE_EVENT_EXEC:
		p.role = roleOf(pid, p.role)
		t.counted.of(p.role).Execs++
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK, unix.PTRACE_EVENT_CLONE:
		if child, err := syscall.PtraceGetEventMsg(tid); err == nil && !t.seen[int(child)] {
			t.coming[int(child)] = true
		}
	case unix.PTRACE_EVENT_EXIT:
		// The other threads of the process no longer run, or it goes on without this one.
		p.faults = max(p.faults, minorFaults(pid))
	}
	return 0
}

// born registers a thread, and its process if that is new.
func (t *tracer) born(tid int) {
	t.seen[tid] = true
	delete(t.coming, tid)
	pid, parent := family(tid)
	if pid == 0 {
		pid, parent = tid, t.root // it has been killed already
	}
	t.threads[tid] = pid
	if pid != tid {
		t.counted.of(t.processes[pid].role).Threads++
		return
	}
	role := "process"
	if p := t.processes[parent]; p != nil {
		role = childOf(p.role)
		if t.pooled && parent == t.root {
			role = ahead + role
		}
	}
	t.processes[pid] = &tracee{role: role}
	t.counted.of(role).Starts++
	t.counted.of(role).Threads++
}

// gone forgets a thread, and the process when it was its leader, which the
// kernel reports last.
func (t *tracer) gone(tid int, status syscall.WaitStatus) {
	pid := t.threads[tid]
	delete(t.threads, tid)
	delete(t.coming, tid)
	if p := t.processes[tid]; p != nil && pid == tid {
		t.ended[p.role] += p.faults
		delete(t.processes, tid)
	}
	if tid == t.root {
		t.status = status
	}
	t.changed.Broadcast()
}

// idle waits until n processes are left, or the trace has failed or ended.
func (t *tracer) idle(n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.err == nil && len(t.processes) > n {
		t.changed.Wait()
	}
	return t.err
}

// prepared follows a shim of the pool to where it waits for an execution, in the
// first recvmsg after it wrote one byte to its starter, and the starter to where
// it has read that byte, which is the only one that comes alone.
func (t *tracer) prepared(pid, tid int, p *tracee, c call) {
	switch shim := p.role == ahead+"capsule-shim"; {
	case shim && c.entry && c.name == "write" && c.first == shimapi.ConnectionFD:
		p.told = true
	case shim && c.entry && c.name == "recvmsg" && p.told && !p.waits:
		p.waits = true
		t.changed.Broadcast()
	case pid == t.root && c.entry:
		t.reading[tid] = c.name == "read"
	case pid == t.root && t.reading[tid] && c.result == 1:
		t.heard = true
		t.changed.Broadcast()
	}
}

// pool waits until nothing runs but the root and one shim, with its sandbox, that
// waits for an execution.
func (t *tracer) pool() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.err == nil && !t.onlyAhead() {
		t.changed.Wait()
	}
	return t.err
}

func (t *tracer) onlyAhead() bool {
	waiting := 0
	for pid, p := range t.processes {
		switch {
		case pid != t.root && !isAhead(p.role), p.role == ahead+"capsule-shim" && !p.waits:
			return false
		case p.waits:
			waiting++
		}
	}
	return waiting == 1 && t.heard
}

// take makes what waits that of the next execution. What it has done before counts
// for nobody.
func (t *tracer) take() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard = false
	for pid, p := range t.processes {
		p.role, p.waits, p.taken = strings.TrimPrefix(p.role, ahead), false, pid != t.root
	}
}

// missed undoes take: the execution has met the root before that knew of what waits.
func (t *tracer) missed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard = true
	for _, p := range t.processes {
		if p.taken {
			p.waits, p.role, p.taken = p.role == "capsule-shim", ahead+p.role, false
		}
	}
}

// snapshot is what was counted up to now.
func (t *tracer) snapshot() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counted.clone()
	for role, n := range t.ended {
		c.of(role).Faults += n
	}
	for pid, p := range t.processes {
		c.of(p.role).Faults += max(p.faults, minorFaults(pid))
	}
	return c
}

// childOf is what a process is, before it executes another program, that was
// cloned by one with the given role.
func childOf(role string) string {
	if isAhead(role) {
		return ahead + childOf(strings.TrimPrefix(role, ahead))
	}
	switch role {
	case "capsulectl", "capsuled":
		return "capsule-shim"
	case "capsule-shim":
		return "init"
	case "init", "payload":
		return "payload"
	}
	return role + "'s child"
}

// roleOf names a process after its program, which the payload is not known by.
func roleOf(pid int, before string) string {
	if isAhead(before) {
		return ahead + roleOf(pid, strings.TrimPrefix(before, ahead))
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	switch name := filepath.Base(exe); {
	case before == "payload" || before == "init" || err != nil:
		return "payload"
	default:
		return name
	}
}

// family reads the process of a thread and the parent of that process.
func family(tid int) (pid, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		n, _ := strconv.Atoi(string(bytes.TrimSpace(value))) // of other lines it is not used
		switch string(name) {
		case "Tgid":
			pid = n
		case "PPid":
			parent = n
		}
	}
	return pid, parent
}

// minorFaults of all threads that a process has or had; proc(5), field 10.
func minorFaults(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	n, _ := strconv.ParseInt(string(fields[7]), 10, 64) // a number, by the kernel's word
	return n
}

// call is the system call at whose entry or exit a thread stands.
type call struct {
	entry  bool
	name   string // at its entry
	first  uint64 // argument, at its entry
	result int64  // at its exit
}

// callOf reads it; ptrace(2), PTRACE_GET_SYSCALL_INFO, Linux 5.3. The zero value:
// the thread has been killed.
func callOf(tid int) call {
	var info struct {
		op    uint8
		_     [3]uint8
		arch  uint32
		_, _  uint64    // instruction and stack pointers
		value uint64    // the call's number, or its result
		first uint64    // argument
		_     [7]uint64 // the other arguments, and what seccomp would have here
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	const atEntry, atExit = 1, 2 // PTRACE_SYSCALL_INFO_ENTRY, PTRACE_SYSCALL_INFO_EXIT
	switch {
	case errno != 0:
		return call{}
	case info.op == atEntry:
		return call{entry: true, name: calls.Name(info.arch, uint32(info.value)), first: info.first}
	case info.op == atExit:
		return call{result: int64(info.value)} // as the kernel has it: -errno is negative
	}
	return call{}
}
