// Package budget holds no code but its tests: they count what one execution
// costs the kernel, and compare with the committed numbers of budget.json, so
// that a regression fails without a clock.
//
// A small tracer (ptrace with PTRACE_O_TRACE* over the whole tree) counts, for
// each kind of process, the system calls, the page faults, the threads and the
// starts of processes. It sees capsulectl, capsule-shim, the sandbox's init and
// the payload of a run without a daemon, and capsuled with all of these below
// it for each way through a daemon.
//
// # What is not counted, and what has room
//
// Go's scheduler decides by the clock and by load when a thread sleeps, wakes
// or is preempted. The calls by which it does so are not counted (scheduling, in
// count_linux_test.go). The calls of one thread's start come with the thread and
// are not counted either; threads have a bound of their own, with room for two.
// Neither are mmap and madvise, which follow the collector. Of the init and the
// payload, which have no scheduler and no collector, every call is counted.
//
// Which of two is faster decides about one piece of work: a shim that is started
// before its request is ready walks its way once while it waits. The tracer holds
// it until the request is there, so that this is never counted.
//
// An execution that meets a sandbox which is ready ("capsuled, ready") is counted
// from its request to the end of its processes: of the shim and the sandbox what
// they do after they are taken, of the daemon also what it does to have the next
// one prepared. What that next one does for itself is the row of nobody.
//
// Everything else is the program's own. It still varies by a few calls: a read
// from a pipe that is not filled yet is tried twice, a connection is read in one
// piece or in two. Page faults vary with what the kernel maps around a fault and
// with which thread's stack is touched. All of that only adds, so the least of
// several runs is compared with the row and the room that budget_linux_test.go
// gives it; a number that is a fifth below its row is told, so that the row
// follows.
//
// # Rows
//
// A row belongs to a way (scenario), a kind of host and a process. The kinds of
// host differ in what has to be done: cgroup v1 has a directory for each
// controller and v2 one for all, an ordinary user has one id where root has
// ranges of them. A kind of host with no rows is told with what they would be, and
// fails where skips do (CAPSULE_TEST_STRICT); this makes them, and -merge keeps the
// larger numbers of two kernels of the same kind:
//
//	go test ./hack/budget -run TestBudget -update
//
// Under the race detector, or built otherwise than by `make build`, the programs
// do more; the tests use bin/ or CAPSULE_BIN and fail where there is none.
package budget
