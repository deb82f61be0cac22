package wire

// Code is a status of gRPC, by which containerd tells errors apart.
type Code uint32

// The codes that are in use.
const (
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Unimplemented      Code = 12
)

// Status is an error that keeps its code on the wire.
type Status struct {
	Code Code
	Text string
}

// Error is the text.
func (s *Status) Error() string { return s.Text }
