// Package fault defines the one error type that crosses a folder or a process
// in capsule, and the one table of its codes. docs/errors.md is generated from
// that table.
package fault
