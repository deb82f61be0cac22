// Package bench times ways to run a command against each other, in one go and
// in random order, so that whatever else the machine does falls on all of them
// alike. It knows ways by a function alone: `make bench` has other sandboxes
// among them, capsulectl bench only what the host of its caller has.
package bench
