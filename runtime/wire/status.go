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
	Unavailable        Code = 14
)

// Status is an error that keeps its code on the wire.
type Status struct {
	Code Code
	Text string
	// Details are of a status that has been read, each a google.protobuf.Any.
	Details []Message
}

// Error is the text.
func (s *Status) Error() string { return s.Text }

// readStatus makes the error of a google.rpc.Status; nil when the call went well.
func readStatus(m Message) error {
	if err := m.Check(); err != nil {
		return err
	}
	if m.Uint(1) == 0 {
		return nil
	}
	s := &Status{Code: Code(m.Uint(1)), Text: m.String(2)}
	for d := range m.Each(3) {
		if d.Check() == nil {
			s.Details = append(s.Details, d)
		}
	}
	return s
}
