package shim

import (
	"io"

	"github.com/capsule-run/capsule/spec"
)

// pipeCapacity is what every new pipe takes without a reader: a page is what
// is left to a user whose pipes hold too much (pipe(7), pipe-user-pages-soft).
const pipeCapacity = 4 << 10

// feed writes data and closes w: at once when it fits into the pipe, beside
// the execution otherwise. A command that does not read it all is no error.
func feed(w io.WriteCloser, data spec.Bytes) {
	write := func() {
		_, _ = w.Write(data) // EPIPE: the command does not want the rest
		_ = w.Close()        // nothing is buffered
	}
	if len(data) <= pipeCapacity {
		write()
		return
	}
	go write()
}
