// Package plan turns an OCI runtime configuration and probed host facts into a
// launch plan: a flat, bounded list of literal kernel steps for
// runtime/launch. It decides everything and does nothing: the same input gives
// the same plan, on any operating system and without privilege, so that a plan
// can be printed, pinned by golden files and read before it is executed.
package plan
