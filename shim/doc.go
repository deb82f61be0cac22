// Package shim is the program of capsule-shim: one process that owns one
// execution. It builds the bundle and the sandbox, keeps the deadline,
// captures the output, makes the verdict and writes it down before it tells
// anybody. When it dies, the sandbox dies with it.
package shim
