// Package wire speaks ttrpc and as much of Protocol Buffers as our services need, without
// reflection. A shim is started for each execution or pod and lives as long, capsulectl for
// each call: what protobuf's generated code registers at every start is a third of the time
// and of the memory of the one, and a fifth of the time of the other.
//
// A frame of ttrpc, as in its PROTOCOL.md:
//
//	| length, 4 bytes | stream, 4 | type, 1 | flags, 1 | payload |
//
// with the numbers in network order. A request (type 1) holds service, method and payload;
// its response (type 2) a status or a payload, in any order, on the request's stream. A
// method with several messages has them in frames of data (type 3); its end is one without
// data, or a response with the error.
package wire
