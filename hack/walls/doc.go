// Package walls attacks the sandbox from inside. It has only tests: each
// builds a sandbox the way a shim does (package host, bundle, plan, launch),
// runs an attacker in it, which is the test binary itself, and asserts the
// exact outcome; then it takes the wall out and asserts that the outcome
// changes. A wall that is lost by accident therefore fails a test, and so does
// a test that would not notice. docs/walls.md lists which test shows which wall.
package walls
