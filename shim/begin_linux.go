package shim

import (
	"io"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec/fault"
)

// receiver reads the supervisor's connection before ttrpc does, and keeps the
// descriptors that come along.
type receiver struct{ files []int }

// Read implements io.Reader.
func (r *receiver) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(2*4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(shimapi.ConnectionFD, p, oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range messages {
			fds, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				return n, err
			}
			r.files = append(r.files, fds...)
		}
		return n, err
	}
}

// receive waits for the bootstrap message and puts the descriptors where they
// belong, in place of the copies of the connection that the starter put there. io.EOF: the starter has no use for this shim.
func receive() (shimapi.Bootstrap, error) {
	// What comes by exec has lost its close-on-exec flag, and a compiler of
	// filters may be started.
	unix.CloseOnExec(shimapi.ConnectionFD)
	if pending, _ := unix.Poll([]unix.PollFd{{Fd: shimapi.ConnectionFD, Events: unix.POLLIN}}, 0); pending == 0 {
		warm()
	}
	var r receiver
	boot, err := shimapi.ReadBootstrap(&r)
	if err != nil {
		return boot, err
	}
	if len(r.files) != 2 {
		return boot, fault.New(fault.InvalidValue, "read bootstrap message", "the directory and the log are missing")
	}
	lock, log := r.files[0], r.files[1]
	for fd := range 3 {
		if err := unix.Dup3(log, fd, 0); err != nil {
			return boot, fault.Wrap(fault.SystemCall, "dup3", err)
		}
	}
	unix.Close(log)
	if err := unix.Dup3(lock, shimapi.LockFD, unix.O_CLOEXEC); err != nil {
		return boot, fault.Wrap(fault.SystemCall, "dup3", err)
	}
	unix.Close(lock)
	return boot, nil
}
