// Package e2e tests the built programs from outside, as a user meets them:
// requests and flags go into capsulectl, what is checked is the response, the
// exit status, the streams, and that nothing is left behind. The tests run as
// whoever starts them; TestAsUnprivilegedUser repeats all of them as another
// user when root does.
//
// CAPSULE_BIN names the directory of the programs; otherwise ../../bin is used
// when it is there, or they are built. CAPSULE_TEST_SLOW multiplies every
// patience on machines that are slow. CAPSULE_TEST_STRICT=1 makes a test fail
// that would be skipped because the host lacks something that it should have.
package e2e
