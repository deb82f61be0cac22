// Package wire speaks ttrpc and the part of Protocol Buffers that containerd's task
// service needs, without reflection: a shim lives as long as its containers, one for each
// pod, and what generated code registers at its start is a third of its memory.
//
// A frame of ttrpc, as in its PROTOCOL.md:
//
//	| length, 4 bytes | stream, 4 | type, 1 | flags, 1 | payload |
//
// with the numbers in network order. A request (type 1) holds service, method and payload;
// its response (type 2) a status or a payload, in any order, on the request's stream.
// Streams of several messages (type 3) are not spoken: the task service has none.
package wire
