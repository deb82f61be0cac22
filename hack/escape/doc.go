// Package escape runs hostile commands and hostile requests against the built
// programs, as root and as an unprivileged user. It has only tests: one or more
// for each row of docs/threat-model.md. Each asserts the exact errno or refusal,
// and when it ends the host must be as it was: the watched trees, our programs,
// the mount table, the control groups, the settings of the kernel.
//
// hack/escape/matrix builds the programs with one wall missing at a time and
// shows which of these tests notice.
package escape
