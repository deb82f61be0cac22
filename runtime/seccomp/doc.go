// Package seccomp holds the system call filters of capsule as data and hands
// out compiled programs from a cache.
//
// A profile is one JSON file of groups, each with the reason it exists. From
// it come the OCI form (Profile, OCI), a key that names its content
// (HashProfile), and, through Cache, the sock_filter instructions that the
// launch plan loads. Compilation needs libseccomp and therefore cgo; it lives
// in the sub-package libseccomp, which only the program capsule-seccomp links.
// This package is pure Go and stays small, because every shim links it and
// starts cold.
//
// # What the answers mean
//
// The profiles default and network allow what is listed, answer EPERM (or
// the errno that the group names) to calls that are listed as denied, and
// ENOSYS to everything else. Libraries probe new calls and fall back only on
// ENOSYS, so a call that is newer than this list behaves as on an older
// kernel. The profile strict is short; there everything else is EPERM.
// SCMP_ACT_KILL_PROCESS answers five calls that replace or extend the running
// kernel, and every call through another architecture's table (i386 and x32
// on amd64), where the numbers mean other calls.
//
// # Where two rules of one call overlap
//
// A group's argument marked "otherwise" matches whatever no other group of
// that call matches. It becomes two rules that compare a single bit, once set
// and once clear. In the programs that libseccomp makes of them the specific
// rules win; that order is not promised, so the compiler refuses a program in
// which a rule is answered more mildly than it says, and tests walk every
// profile's program against the rules.
package seccomp
