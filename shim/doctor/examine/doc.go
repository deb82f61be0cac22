// Package examine finds out what the host gives to the user that it runs as.
// It does what an execution does, with the code that does it for executions, and
// when a step fails it looks for the setting that is in the way, leaves that wall
// out and goes on, so that one report names everything that is to be mended.
//
// It runs in capsule-shim: profiles and policies are attached to that program.
package examine
