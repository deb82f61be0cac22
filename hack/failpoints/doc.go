// Package failpoints dies at every marked step of an execution's life, in the
// supervisor and in the shim, and asks the next supervisor what it finds: one
// verdict that is true, or none for an execution that was never recorded, and
// nothing left of the sandbox.
package failpoints
