// Package wire is how the types of package api travel in messages of
// capsule.supervisor.v1, as a caller needs it: it registers nothing and knows no
// reflection (see runtime/wire). Package server has the reverse, made of protobuf's
// own code.
package wire

const (
	// Service is the full name of the service.
	Service = "capsule.supervisor.v1.Supervisor"
	// Version is the name under which Info lists this protocol.
	Version = "v1"
	// MaxMessage is what one ttrpc message holds, in bytes.
	MaxMessage = 4 << 20
	// MaxRequest is the largest request document that the client sends inline,
	// in bytes. What is above it and has inline stdin is sent with stdin streamed.
	MaxRequest = 3 << 20
	// MaxResponse is the largest document of a response that travels with its
	// output, in bytes.
	MaxResponse = 2 << 20
	// Window is how many messages with data may be under way unacknowledged, in
	// each direction of each stream.
	Window = 32
	// Chunk is how much output a message carries at most, and how much stdin the
	// client puts into one, in bytes.
	Chunk = 64 << 10
	// MaxStreamFrame is the largest message that a caller may send on a stream
	// that is open, in bytes.
	MaxStreamFrame = 256 << 10
)
