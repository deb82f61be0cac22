package supervisor

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi/times"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/history"
)

// inlineOutput is how much output, in bytes, a daemon holds in memory with a
// response. More of it is passed on piece by piece.
const inlineOutput = 1 << 20

// errMoved is that an execution left the state directory while it was read.
var errMoved = errors.New("it is in the history now")

// kept is what is left of the output of an ended execution.
type kept struct {
	streams [2]keptStream // stdout, stderr
}

// keptStream is one stream of it.
type keptStream struct {
	from io.ReadSeeker
	// size bytes from the offset first on are kept, of total.
	size, first, total int64
	index              *times.Index
}

// all reads what is kept, from the beginning.
func (k *keptStream) all() ([]byte, error) {
	data := make([]byte, k.size)
	n, err := io.ReadFull(k.from, data)
	return data[:n], err
}

func (k *kept) close() {
	for _, s := range k.streams {
		if c, ok := s.from.(io.Closer); ok {
			_ = c.Close() // it was only read
		}
	}
}

// kept opens the output of an ended execution; nil: it never had any.
func (s *Supervisor) kept(e *entry) (*kept, error) {
	k := &kept{}
	var encoded []byte
	var err error
	r := s.told(e.summary.ID)
	if r == nil && e.dir != "" {
		data, err := readResult(e.dir)
		if err != nil {
			return nil, moved(err, e.dir.Result())
		}
		r = decodeResult(e.summary.ID, e.summary.Created, data)
	}
	if r == nil {
		r, encoded, err = s.keptInHistory(e.summary.ID, k)
	} else {
		dir := s.state.Execution(e.summary.ID)
		encoded, _ = os.ReadFile(dir.Times()) // without them the times are not known
		if err = k.take(dir, r); errors.Is(err, errMoved) && e.dir == "" {
			r, encoded, err = s.keptInHistory(e.summary.ID, k)
		}
	}
	if err != nil || r.Output == nil {
		k.close()
		return nil, err
	}
	tail := s.keepsTail(e)
	for i, n := range []spec.StreamCount{r.Output.Stdout, r.Output.Stderr} {
		stream := &k.streams[i]
		if stream.total = n.BytesTotal; tail {
			stream.first = n.BytesTotal - stream.size
		}
		if stream.index, encoded, err = times.Decode(encoded); err != nil {
			stream.index = &times.Index{}
		}
	}
	return k, nil
}

// moved is err, or errMoved when it says that something is not there any more.
func moved(err error, path string) error {
	if errors.Is(err, os.ErrNotExist) {
		return errMoved
	}
	return fault.Wrap(fault.IO, "read kept output", err).WithPath(path)
}

// take takes output out of a response, or from the files that it leaves it in.
func (k *kept) take(dir layout.Dir, r *spec.Response) error {
	if r.OutputElided {
		return k.open(dir, r.Output)
	}
	stdout, err1 := r.StdoutBytes()
	stderr, err2 := r.StderrBytes()
	k.memory(stdout, stderr)
	return errors.Join(err1, err2)
}

func (k *kept) memory(stdout, stderr []byte) {
	for i, data := range [][]byte{stdout, stderr} {
		k.streams[i].from, k.streams[i].size = bytes.NewReader(data), int64(len(data))
	}
}

// open opens the files of large output. E6006: they are not what the result says.
func (k *kept) open(dir layout.Dir, o *spec.Output) error {
	for i, path := range []string{dir.Stdout(), dir.Stderr()} {
		size := []int64{o.Stdout.BytesKept, o.Stderr.BytesKept}[i]
		k.streams[i].from, k.streams[i].size = bytes.NewReader(nil), size
		if size == 0 {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			if _, gone := os.Lstat(dir.Result()); errors.Is(err, os.ErrNotExist) && gone == nil {
				return fault.New(fault.StateUnreadable, "read kept output", "it is missing").WithPath(path)
			}
			return moved(err, path)
		}
		k.streams[i].from = f
		if info, err := f.Stat(); err != nil || info.Size() != size || !info.Mode().IsRegular() {
			return fault.New(fault.StateUnreadable, "read kept output", "it is not as long as the result says").WithPath(path)
		}
	}
	return nil
}

// keptInHistory opens output in the history. Without a daemon it is read whole:
// the history is closed again, so that others may have it.
func (s *Supervisor) keptInHistory(id string, k *kept) (r *spec.Response, encoded []byte, err error) {
	err = s.history(func(h *history.Store) error {
		rec, err := h.Get(id)
		if err != nil {
			return err
		}
		if r, err = spec.DecodeResponse(rec.Response); err != nil {
			return fault.New(fault.StateUnreadable, "decode response", err.Error())
		}
		encoded, _ = h.Times(id) // without them the times are not known
		if k.memory(nil, nil); rec.OutputDropped || r.Output == nil {
			return nil
		}
		if s.daemon == nil {
			stdout, err1 := pastOutput(h, id, "stdout")
			stderr, err2 := pastOutput(h, id, "stderr")
			k.memory(stdout, stderr)
			return errors.Join(err1, err2)
		}
		for i, name := range []string{"stdout", "stderr"} {
			out, err := h.Output(id, name)
			if err != nil {
				return err
			}
			k.streams[i].from, k.streams[i].size = out, []int64{rec.StdoutBytes, rec.StderrBytes}[i]
		}
		return nil
	})
	return r, encoded, err
}

// fill puts output that was left out into a response, for a caller in this process.
func (s *Supervisor) fill(r *spec.Response, dir layout.Dir) error {
	k := &kept{}
	defer k.close()
	if err := k.open(dir, r.Output); err != nil {
		return err
	}
	stdout, err1 := k.streams[0].all()
	stderr, err2 := k.streams[1].all()
	r.SetOutput(stdout, stderr)
	r.OutputElided = false
	return errors.Join(err1, err2)
}

// keepsTail tells whether the kept bytes are the last ones.
func (s *Supervisor) keepsTail(e *entry) bool {
	req, err := s.request(e)
	return err == nil && req != nil && req.Resources.OutputPolicy == "tail"
}
