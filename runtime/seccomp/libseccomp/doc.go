// Package libseccomp compiles OCI linux.seccomp objects to programs for
// seccomp(2) with the C library of that name. It is the only package of
// capsule that uses cgo, and only the program capsule-seccomp links it. Built
// without cgo or with the tag noseccomp, Compile answers E2003.
//
// # How OCI is read
//
// As runc reads it, where the specification leaves room:
//
//   - The architecture that the program is compiled for is always accepted;
//     those that the object lists are accepted besides.
//   - Calls through any other architecture's table kill the process.
//   - All conditions of a rule must hold, except when two of them are about
//     the same argument: then each condition of that rule becomes a rule of
//     its own, so that any of them suffices.
//   - A rule that answers as the default does is left out.
//   - A rule without errnoRet answers EPERM. errnoRet with an action that
//     carries none is refused.
//
// And more strictly than runc, because a policy is never off in silence:
//
//   - A name that libseccomp does not know is left out only when that leaves
//     the filter as strict or stricter: in an allowlist an unknown allowed
//     call stays denied. An unknown call that the object wants to be stricter
//     about than its default is refused. A name that the architecture lacks
//     but libseccomp knows is left out in any case.
//   - A rule that another rule of the same call overrides so that its call
//     gets a milder answer is refused; libseccomp would drop it silently.
//   - SCMP_ACT_NOTIFY, listenerPath and the flags that belong to it are
//     refused by name: capsule has no such agent.
//
// SECCOMP_FILTER_FLAG_TSYNC (the loading process has one thread),
// SECCOMP_FILTER_FLAG_LOG and SECCOMP_FILTER_FLAG_SPEC_ALLOW are accepted and
// have no effect: the program is the same with and without them, and the
// launch plan loads it without flags.
package libseccomp
