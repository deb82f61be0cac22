package supervisor

import (
	"io"

	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
)

// replayBuffer is how much of kept output is written at a time.
const replayBuffer = 64 << 10

// replay takes what is left of the output of an ended execution. errMoved: it
// moved to the history meanwhile.
func (a *attachment) replay(s *Supervisor, e *entry) error {
	k, err := s.kept(e)
	if err != nil || k == nil {
		return err
	}
	defer k.close()
	for i, id := range []shimv1.Stream{shimv1.Stream_STREAM_STDOUT, shimv1.Stream_STREAM_STDERR} {
		// Of a stream that went through a pipe nothing is left when its shim dies.
		if r := a.streams[id]; r != nil && !r.ended && !r.piped {
			if err := a.rest(r, &k.streams[i]); err != nil {
				return err
			}
			r.ended = true
		}
	}
	return nil
}

// rest passes on what is kept of one stream from where the receiver is.
func (a *attachment) rest(r *receiver, k *keptStream) error {
	at := max(r.at, k.first)
	if !a.o.Since.IsZero() {
		from, some := k.index.Since(a.o.Since)
		if !some {
			from = k.total
		}
		at = max(at, from)
	}
	if at < k.first+k.size {
		if _, err := k.from.Seek(at-k.first, io.SeekStart); err != nil {
			return err
		}
	}
	buf := make([]byte, min(replayBuffer, max(k.first+k.size-at, 0)))
	for at < k.first+k.size && r.to != nil {
		n, err := k.from.Read(buf)
		if n == 0 && err != nil {
			return err
		}
		for data := buf[:n]; len(data) > 0; {
			came, until := k.index.At(at)
			part := data[:min(int64(len(data)), until-at)]
			nanos := int64(0)
			if !came.IsZero() {
				nanos = came.UnixNano()
			}
			a.take(r, at, nanos, part)
			at, data = at+int64(len(part)), data[len(part):]
		}
	}
	if r.at < k.total && r.to != nil {
		a.take(r, k.total, 0, nil)
	}
	return nil
}
