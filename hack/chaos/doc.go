// Chaos kills capsuled, shims and clients with SIGKILL at random moments while
// a mixed load of executions runs, and checks afterwards that nothing was lost,
// invented or left behind.
//
// The load is short, long, chatty, forking and memory-hungry executions, and
// some that end with their client. Their ids are chosen and written down before
// Start, so that after a lost connection Start is repeated and Wait asked again
// with the same id. Then:
//
//  1. capsuled is killed and started again (-supervisors times),
//  2. shims are killed, during set-up, run and tear-down (-shims),
//  3. clients are killed, half of them own their execution (-clients),
//  4. capsuled and a shim are killed together (-both),
//  5. records are cut short, emptied or filled with garbage while no daemon
//     runs (-records): reported, survived, never guessed,
//  6. the state directory is full or read-only (-space), in a mount namespace of
//     its own: refused with a hint, what runs ends well, and it recovers.
//
// Every execution that was started must have exactly one verdict: the expected
// one with complete output, or shim_lost when its shim was killed, or
// killed_by_caller when its client was. Asked twice, also of the next daemon, it
// is the same. No process, cgroup, mount, directory, id slot, descriptor or
// goroutine may be left. A deviation is told with the seed and the end of the
// daemon's log, and the exit status is 1.
//
// The seed decides what is run and how long the pauses are; the kernel's
// scheduler decides the rest, so a seed repeats the load and not the moment.
//
// All of it is bounded: an overall deadline, executions that end by themselves
// within two minutes, memory hogs of at most 64 MiB. It needs root, and signals
// only processes that it started and their descendants.
package main
