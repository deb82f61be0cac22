// Package failpoint marks the steps after which a supervisor or a shim may die.
// In ordinary builds the marks are nothing. With the build tag failpoints the
// process kills itself at the one that the environment names, by which
// hack/failpoints dies at every one of them in turn.
package failpoint
