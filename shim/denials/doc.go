// Package denials serves the listener of a sandbox's filter: it answers each
// refused call with what the profile says and keeps a bounded record of them.
//
// A call that waits for its answer costs the host a switch to this process and
// back, a few microseconds that nobody's limit counts. So a payload that makes
// refused calls without end is made to wait once it has had a burst of them:
// see pace.
package denials
