package shim

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec/fault"
)

// Main runs a shim, with the supervisor's connection on
// shimapi.ConnectionFD. It returns when the execution is over, its result
// delivered or recorded, and nothing left; or when the connection ended before
// there was one.
func Main() error {
	s := &server{quit: make(chan struct{}), offered: make(chan struct{}), begun: make(chan *service), over: make(chan struct{})}
	go s.converse()
	boot, err := receive()
	var ready *spare
	if err == nil && boot.Template {
		boot, ready, err = await(boot)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	failpoint.Here("shim.begun")
	e := newExecution(boot)
	e.spare = ready
	// From here on the execution has begun: if this process dies it is lost.
	if err := unix.Rename(e.dir.NewLog(), e.dir.Log()); err != nil && err != unix.ENOENT {
		_ = ready.discard() // the directory tells a sweep what may be left
		return fault.Wrap(fault.IO, "begin", err).WithPath(e.dir.Log())
	}
	s.e = e
	return s.serve()
}

// server connects an execution with its callers.
type server struct {
	e    *execution
	quit chan struct{}
	once sync.Once

	offered chan struct{} // closed when listen makes nothing more in the directory
	begun   chan *service // from when on there is something to talk of
	over    chan struct{} // closed when nothing is to be said any more
}

func (s *server) shutdown() { s.once.Do(func() { close(s.quit) }) }

func (s *server) serve() error {
	// It was blocking for the bootstrap message; from here on Go's poller waits.
	if err := unix.SetNonblock(shimapi.ConnectionFD, true); err != nil {
		return fault.Wrap(fault.IO, "take over connection", err)
	}
	svc := newService(s.e, s.shutdown)
	s.begun <- svc
	if len(s.e.boot.Request) > 0 || !s.e.boot.Foreground {
		svc.runFirst(&createRequest{request: s.e.boot.Request, streamStdin: s.e.boot.StreamStdin})
	}
	<-s.over
	return nil
}

// converse answers the starter, and whoever comes, until the end of the execution. It is
// a goroutine that is made before there is one, and that begins when the command
// has all that it needs of the one processor.
func (s *server) converse() {
	defer close(s.over)
	svc := <-s.begun
	conn := os.NewFile(shimapi.ConnectionFD, "supervisor")
	srv := svc.server()
	go s.listen(srv)
	if s.e.boot.Direct {
		openDirect(s.e, conn)
	} else {
		go func() {
			defer close(s.e.lost)
			srv.Converse(conn)
		}()
	}
	if !s.e.boot.Foreground {
		s.outlive(svc, srv)
		return
	}
	s.wait(svc)
	s.dismiss(srv)
}

// dismiss lets those go who came to a foreground execution; whoever is later sees
// the connection end.
func (s *server) dismiss(srv *wire.Server) {
	if srv.Visited() {
		ctx, cancel := context.WithTimeout(context.Background(), visitTime)
		defer cancel()
		srv.Shutdown(ctx)
	}
}

// answerTime is how long a detached shim stays for callers that have not taken
// their answer. What they miss stands in the result.
const answerTime = 5 * time.Second

// visitTime is how long the shim of a foreground execution stays for others than
// its caller that have not taken their answer: what came of their signal.
const visitTime = time.Second

// outlive sees an execution to its end that nobody needs to wait for. Its
// starter ends the connection when it has the answer; closed by us, its ttrpc may
// tell the starter of the end and not of the answer before it.
func (s *server) outlive(svc *service, srv *wire.Server) {
	select {
	case <-s.quit:
		if !isClosed(s.e.gone) {
			s.end(svc)
		}
	case <-s.e.gone:
	}
	s.e.keepRecording()
	<-s.offered
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	select {
	case <-s.e.lost:
	case <-ctx.Done():
	}
	failpoint.Here("shim.gone")
	srv.Shutdown(ctx) // whoever is late finds the result on disk
	failpoint.Here("shim.answered")
	s.tidy()
	failpoint.Here("shim.tidied")
}

// tidy leaves of the directory what is to be collected. The root goes last, and
// only when nothing of the sandbox is left: a sweep comes where it stands.
func (s *server) tidy() {
	dir := s.e.dir
	gone := []string{dir.Socket(), dir.Shim()}
	if !s.e.inFiles {
		gone = append(gone, dir.Stdout(), dir.Stderr())
	}
	if info, err := os.Stat(dir.Log()); err == nil && info.Size() == 0 {
		gone = append(gone, dir.Log())
	}
	var errs []error
	for _, path := range gone {
		// os.Remove would take what is not there for a directory next.
		if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
			errs = append(errs, &os.PathError{Op: "unlink", Path: path, Err: err})
		}
	}
	if s.e.left == nil {
		errs = append(errs, os.RemoveAll(dir.Rootfs()))
	}
	if err := errors.Join(errs...); err != nil {
		logLine("remove: " + err.Error())
	}
}

// wait sees a foreground execution to its end.
func (s *server) wait(svc *service) {
	select {
	case <-s.quit:
	case <-s.e.lost:
	case <-s.e.gone:
	}
	if !isClosed(s.e.gone) {
		s.end(svc)
	}
	select {
	case <-s.quit:
	case <-s.e.lost: // the result is delivered, or nobody wants it any more
	}
	<-s.e.gone
	if s.e.left != nil {
		return // the next sweep finds by the directory what is left
	}
	<-s.offered
	if err := os.RemoveAll(string(s.e.dir)); err != nil {
		logLine("remove directory: " + err.Error())
	}
}

// end stops an execution wherever it is and waits until nothing of it is left.
func (s *server) end(svc *service) {
	s.e.cancel()
	s.e.dropHeld()
	created := false
	svc.create.Do(func() { created = true }) // waits for a Create that runs
	if created {
		s.e.left = s.e.spare.discard() // there never was anything else
		close(s.e.gone)
		return
	}
	svc.start.Do(func() {
		s.e.note(func(o *observation) {
			if o.failure == nil {
				o.failure = cancelledEarly()
			}
		})
		close(svc.begun)
	})
	<-s.e.gone
}

// listen offers the API on the socket too, once the command runs: nobody can
// want it earlier, and the start is not to wait for it.
func (s *server) listen(srv *wire.Server) {
	l, err := s.offer()
	close(s.offered)
	failpoint.Here("shim.offered")
	if l == nil || err != nil {
		return
	}
	_ = srv.Serve(l) // ends with the process
}

// offerDelay is how long a command runs before others find its shim: one that is
// quicker needs neither socket nor record, which cost as much as it does.
const offerDelay = 4 * time.Millisecond

// offer makes what others find in the directory. A nil listener: there was
// nothing to offer.
func (s *server) offer() (*os.File, error) {
	select {
	case <-s.e.running:
	case <-s.e.gone:
		return nil, nil
	}
	quick := time.NewTimer(offerDelay)
	defer quick.Stop()
	select {
	case <-quick.C:
	case <-s.e.ended: // the starter has the answer, or what it says is recorded
		return nil, nil
	}
	if s.e.writeBundle != nil {
		if err := s.e.writeBundle(); err != nil {
			logLine(err.Error())
		}
	}
	if err := s.record(); err != nil {
		logLine(err.Error())
	}
	failpoint.Here("shim.recorded")
	l, err := listenIn(shimapi.LockFD)
	if err != nil {
		logLine("listen: " + err.Error())
	}
	return l, err
}

// listenIn makes shim.sock in a directory. net.Listen would first read the
// host's longest backlog, through a buffer of 64 KiB. The socket's file goes
// with the directory.
func listenIn(dir int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// Through the descriptor: a socket address holds 108 bytes, a path more.
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/shim.sock"}); err == nil {
		err = unix.Listen(fd, 64)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "shim.sock"), nil
}

// record writes shim.json, by which a supervisor recognises this process.
func (s *server) record() error {
	id, err := identify()
	if err != nil {
		return err
	}
	return layout.WriteFile(s.e.dir.Shim(), id)
}
