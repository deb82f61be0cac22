package output

import (
	"os"

	"github.com/capsule-run/capsule/spec/fault"
)

// Bytes returns a copy of the kept bytes in their order, at most Config.Limit. Before
// Finish it is what is kept so far. E3004 when they cannot be read back.
func (s *Stream) Bytes() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, captureFault("read back output", s.cfg.Name, os.ErrClosed)
	}
	kept := make([]byte, s.store.kept())
	if err := s.store.read(kept, s.store.start()); err != nil {
		return nil, captureFault("read back output", s.cfg.Name, err)
	}
	return kept, nil
}

// Save makes the file hold exactly the kept bytes in their order. It is called
// after Finish, by a caller that wants the file besides Bytes or instead of
// them: without it small output never touches the disk, and a tail stays the
// ring that it is. A stream that kept nothing has no file. It does not sync.
// E3004 when the bytes cannot be stored, or when the stream is not frozen.
func (s *Stream) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.frozen || s.closed {
		return fault.New(fault.OutputCapture, "save output", "the stream is not frozen, or closed").WithPath(s.cfg.Name)
	}
	if err := s.store.save(); err != nil {
		s.store.fail("save output", err)
		return captureFault("save output", s.cfg.Name, err)
	}
	return nil
}
