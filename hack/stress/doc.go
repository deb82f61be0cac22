// Package stress has no code of its own: its tests end executions, their
// callers and their shims at every moment, in every way and many at a time, and
// look for what is left: processes, control groups, directories, locks, mounts
// and descriptors. They run the built programs of $CAPSULE_BIN, else ../../bin.
//
// CAPSULE_TEST_SCALE or CAPSULE_TEST_SLOW divide the counts and multiply the
// patience on a slow machine.
package stress
