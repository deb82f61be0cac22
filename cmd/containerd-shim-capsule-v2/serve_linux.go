package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/task"
	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
)

const (
	nonblock = unix.O_NONBLOCK
	// runDir has what servers share: their sockets, and compiled filters. It is that of
	// capsule-oci, and root's alone.
	runDir = "/run/capsule-oci"
	// scheme is how containerd calls the address of a unix socket.
	scheme = "unix://"
)

// groups are the annotations that name the pod of a container: those of the CRI plugin,
// and the one by which any caller of containerd can have one server for several.
var groups = []string{"io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"}

// group is the id of the pod, or of the container where it has none.
func (c *call) group() (string, error) {
	name := filepath.Join(c.bundle, "config.json")
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fault.Wrap(fault.InvalidBundle, "read bundle", err).WithPath(name)
	}
	var config struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return "", fault.Wrap(fault.InvalidBundle, "decode config.json", err).WithPath(name)
	}
	for _, name := range groups {
		if id := config.Annotations[name]; id != "" {
			return id, nil
		}
	}
	return c.id, nil
}

// start starts a server for the container's pod, or finds the one that is there, and
// prints its address.
func (c *call) start() error {
	group, err := c.group()
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(strings.Join([]string{c.address, c.namespace, group}, "\x00")))
	socket := filepath.Join(runDir, "s", hex.EncodeToString(hash[:12]))
	listener, err := listen(socket)
	if err != nil {
		return err
	}
	// containerd 1.6 finds the server by it after a restart.
	if err = os.WriteFile(filepath.Join(c.bundle, "address"), []byte(scheme+socket), 0o600); err != nil {
		err = fault.Wrap(fault.IO, "write address", err).WithPath(c.bundle)
	}
	if listener != nil {
		defer listener.Close()
		if err == nil {
			err = c.launch(listener)
		}
		if err != nil {
			return errors.Join(err, os.Remove(socket))
		}
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(scheme + socket)
	return err
}

// listen makes the socket. Nil: a server has it.
func listen(path string) (*os.File, error) {
	fail := func(op string, err error) error { return fault.Wrap(fault.IO, op, err).WithPath(path) }
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fail("make directory", err)
	}
	lock, err := alone(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if conn, err := wire.Dial(path); err == nil {
		conn.Close()
		return nil, nil
	} else if errors.Is(err, unix.ECONNREFUSED) { // of a server that was killed
		_ = os.Remove(path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fail("socket", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fail("listen", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// alone locks the directory of sockets: one that nobody listens at may be about to be
// listened at, unless nobody else is here.
func alone(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	for err == nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err == nil {
			return f, nil
		}
		if err == unix.EINTR {
			err = nil
		}
	}
	return nil, fault.Wrap(fault.IO, "lock", err).WithPath(dir)
}

// launch executes the server. Its program is this one through a mount of its own that is
// read-only and nobody else's: what runs in a container before its command is executed has
// it as /proc/PID/exe, and must not be able to write to it (CVE-2019-5736). The pages of
// the program stay one copy for all servers, which a copy in memory would not.
func (c *call) launch(listener *os.File) error {
	self, err := os.Executable()
	if err != nil {
		return fault.Wrap(fault.IO, "find the program", err)
	}
	fail := func(op string, err error) error { return fault.Wrap(fault.SystemCall, op, err).WithPath(self) }
	fd, err := unix.OpenTree(unix.AT_FDCWD, self, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fail("open_tree", err)
	}
	program := os.NewFile(uintptr(fd), self)
	defer program.Close()
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}); err != nil {
		return fail("mount_setattr", err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return fault.Wrap(fault.IO, "open", err)
	}
	defer null.Close()
	args := []string{self, "-namespace", c.namespace, "-address", c.address, "-id", c.id, "-bundle", c.bundle, "-helper", filepath.Join(filepath.Dir(self), "capsule-seccomp")}
	if c.debug {
		args = append(args, "-debug")
	}
	// It waits, for a call or an end: one processor is enough, and each costs memory as long as
	// it lives. containerd sets two.
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		return fail("setenv", err)
	}
	p, err := os.StartProcess("/proc/self/fd/"+strconv.Itoa(fd), append(args, "serve"), &os.ProcAttr{Dir: "/", Env: os.Environ(),
		Files: []*os.File{null, null, null, listener}, Sys: &unix.SysProcAttr{Setsid: true}})
	if err != nil {
		return fail("execute", err)
	}
	defer func() { _ = p.Release() }() // it has no resource that could remain
	spare(p.Pid)
	return nil
}

// spare makes the kernel take the server sooner than containerd when memory is short, as
// it is with other shims.
func spare(pid int) {
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return // no process is spared here
	}
	if score, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && score < 1000 {
		// Any process may have a higher score; without one the server works all the same.
		_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(score+1)), 0)
	}
}

// serve is the server: descriptor 3 is its socket.
func (c *call) serve() error {
	log := logger(filepath.Join(c.bundle, "log"))
	err := c.hidden()
	if err != nil {
		log(err)
		return err
	}
	unix.CloseOnExec(3)
	listener := os.NewFile(3, "listener")
	address, err := unix.Getsockname(3)
	socket, ok := address.(*unix.SockaddrUnix)
	if err != nil || !ok {
		return fault.New(fault.InvalidValue, "serve", "there is no socket: containerd calls this program")
	}
	events := os.Getenv("TTRPC_ADDRESS")
	if events == "" {
		events = c.address + ".ttrpc"
	}
	useScopes(c.helper)
	service := task.NewService(task.Config{Namespace: c.namespace, Events: strings.TrimPrefix(events, scheme), SeccompHelper: c.helper,
		Filters: filepath.Join(runDir, ".filters"), Debug: c.debug, Log: log, Judge: judge, Exit: func() {
			_ = os.Remove(socket.Name) // first, so that nobody connects any more
			_ = listener.Close()
		}})
	server := wire.Server{Call: func(_ context.Context, name, method string, request wire.Message) (wire.Message, error) {
		return service.Handle(name, method, request)
	}}
	if err := server.Serve(listener); err != nil {
		log(err)
		return err
	}
	// Whoever asked for the end may not have the answer yet.
	ctx, cancel := context.WithTimeout(context.Background(), lastAnswer)
	defer cancel()
	server.Shutdown(ctx)
	return nil
}

// lastAnswer is how long a server that ends stays for the answer to that.
const lastAnswer = time.Second

// hidden makes this process one whose clones give nothing away in a container.
func (c *call) hidden() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/self/exe", &fs); err != nil || fs.Flags&unix.ST_RDONLY == 0 {
		return fault.New(fault.SystemCall, "serve", "the program can be written to: containerd calls this program with start")
	}
	// A process of a container is born as our clone, and in its namespaces: who is there
	// already must not look at it, nor at what it has open (CVE-2016-9962).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fault.Wrap(fault.SystemCall, "prctl", err)
	}
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fault.Wrap(fault.SystemCall, "close_range", err)
	}
	// The program's file has the name of a number: see launch.
	comm, _ := unix.BytePtrFromString("containerd-shim") // no NUL is in it
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(comm)), 0, 0, 0); err != nil {
		return fault.Wrap(fault.SystemCall, "prctl", err)
	}
	return nil
}

// forget removes the socket of a server that was killed.
func forget(bundle string) {
	text, err := os.ReadFile(filepath.Join(bundle, "address"))
	path, ok := strings.CutPrefix(string(text), scheme+runDir+"/s/")
	if err != nil || !ok || strings.Contains(path, "/") {
		return
	}
	lock, err := alone(filepath.Join(runDir, "s"))
	if err != nil {
		return // it was the last
	}
	defer lock.Close()
	path = filepath.Join(runDir, "s", path)
	conn, err := wire.Dial(path)
	switch {
	case err == nil:
		conn.Close()
	case errors.Is(err, unix.ECONNREFUSED):
		_ = os.Remove(path) // another delete may have been quicker
	}
}
