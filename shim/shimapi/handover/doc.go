// Package handover passes the read ends of pipes along with the bytes of a unix
// socket, so that output can go from a shim to whoever wants it without anybody
// in between copying it.
//
//	shim --(pipe, Sender)--> capsuled (Receiver, Sender) --(the same pipe)--> client (Receiver)
//
// The messages on the socket are ttrpc's, which knows nothing of descriptors. A
// message that announces a pipe therefore names it by its inode number, and the
// descriptor comes with these bytes or earlier ones. Only the side that serves
// sends any: a supervisor takes no descriptor of a client's.
package handover

// maxWaiting bounds the pipes that came and were not taken. A peer that sends more
// breaks the protocol; they are closed.
const maxWaiting = 64
