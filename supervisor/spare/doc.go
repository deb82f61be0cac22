// Package spare starts a shim before this program's own Go runtime begins, so
// that the two start beside one another instead of one after the other: a third
// of the time of a run without a daemon. The shim waits on its connection for a
// bootstrap message; when none comes, because the connection ends, it ends too.
//
// It happens only in a program that is linked with -E capsule_entry, which the
// Makefile does for capsulectl on amd64. Take finds nothing anywhere else.
package spare
