// Package cgroup puts one execution into a control group of its own: it finds
// out what this host offers, makes the group with its limits, counts what the
// execution uses, kills all of it and takes the group away again.
//
// # What comes from containerd/cgroups and what does not
//
// The mode of the host and the reading of /proc/self/cgroup come from
// github.com/containerd/cgroups/v3. Its managers (cgroup1, cgroup2) are the
// reference that the tests compare with: the same resources give the same
// values in the same files, the same numbers are read from a live group, and
// a group made here can be loaded and deleted by them. They are not linked
// into the program that makes a sandbox, because it starts cold for every
// execution. Measured on a hybrid host with two cores:
//
//   - linking them costs 0.2 ms (cgroup1) to 0.4 ms (cgroup2: protobuf
//     descriptors, D-Bus, eBPF) at every start of the process;
//   - New, Stat and Delete with the six hierarchies that matter cost 0.64,
//     0.74 and 1.89 ms; the same by direct system calls 0.46, 0.11 and 0.21 ms,
//     because Stat reads some thirty files where eight are wanted and Delete
//     lists every directory before it removes it;
//   - they attach by writing a foreign pid to cgroup.procs, which waits about
//     10 ms for an RCU grace period; CLONE_INTO_CGROUP and a child that
//     writes "0" to its own tasks files cost 0.04 ms.
//
// # Where groups are
//
// A group is the directory capsule-NAME directly below the cgroup that this
// process is in, on every hierarchy in use, so that limits around this process
// bind the execution too. There is no common parent directory: one would cost
// a second mkdir and rmdir per hierarchy and a race with whoever removes it.
//
// On v2 a cgroup that has processes of its own cannot give controllers to its
// children. Prepare finds the place then: in a delegated cgroup it moves
// what is there to the leaf capsule.leaf; otherwise it goes up to the nearest
// ancestor without processes, as long as no limit is left behind by that.
// Where nothing was delegated, an empty child capsule.pin stays there, without
// which systemd would take the controllers back. The leaf stays too.
//
// On a hybrid host the limits are on the v1 hierarchies, and the group also
// exists in the v2 tree that has no controllers: cgroup.kill, cgroup.events,
// CLONE_INTO_CGROUP and precise CPU time work there all the same.
package cgroup
