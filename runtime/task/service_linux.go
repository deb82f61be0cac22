package task

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
)

// Config is what a service needs to know.
type Config struct {
	// Namespace is containerd's.
	Namespace string
	// Events is containerd's ttrpc socket.
	Events string
	// SeccompHelper is the path of capsule-seccomp.
	SeccompHelper string
	// Filters is the directory of compiled filters, which is made when it is needed.
	Filters string
	// Debug tells more.
	Debug bool
	// Log is told what went wrong without being an error of a call. Not nil.
	Log func(error)
	// Judge makes the verdict on a command that terms.Annotation asks for: the document for the
	// log, one line, and the message of at most MessageMax bytes. Nil: no verdicts.
	Judge func(*Outcome) (document, message []byte)
	// Exit is called when containerd wants the service to end and no container is left.
	Exit func()
}

// Service holds the containers of one shim.
type Service struct {
	Config
	events *publisher
	quiet  *quiet

	mu    sync.Mutex
	tasks map[string]*task
}

// task is a container.
type task struct {
	id, bundle string
	rt         *container.Runtime
	first      *process
	owner      func(*specs.Process) (uid, gid uint32) // of the streams
	unwatch    func()                                 // ends the watch for the OOM killer
	killed     sync.Mutex                             // guards kills, and the order in which they are told
	kills      uint64                                 // of the OOM killer, as told
	verdict    *verdict                               // on its first process. Nil: nobody asks
	ownPids    bool                                   // it has a pid namespace to itself, which ends with its first process
	execs      map[string]*process                    // guarded by Service.mu
}

// NewService makes a service without containers.
func NewService(c Config) *Service {
	return &Service{Config: c, events: newPublisher(c.Events, c.Namespace, c.Log), quiet: newQuiet(), tasks: map[string]*task{}}
}

// method is one of the task service. Requests and answers are those of
// api/runtime/task/v2/shim.proto, which v3 has unchanged.
type method func(*Service, wire.Message) (wire.Message, error)

func methods() map[string]method {
	return map[string]method{
		"State": (*Service).state, "Create": (*Service).create, "Start": (*Service).start, "Delete": (*Service).delete,
		"Pids": (*Service).pids, "Pause": (*Service).pause, "Resume": (*Service).resume, "Kill": (*Service).kill,
		"Exec": (*Service).exec, "ResizePty": (*Service).resize, "CloseIO": (*Service).closeIO, "Update": (*Service).update,
		"Wait": (*Service).wait, "Stats": (*Service).stats, "Connect": (*Service).connect, "Shutdown": (*Service).shutdown,
	}
}

// Handle answers a call.
func (s *Service) Handle(service, name string, request wire.Message) (wire.Message, error) {
	m := methods()[name]
	if m == nil || service != "containerd.task.v2.Task" && service != "containerd.task.v3.Task" {
		return nil, &wire.Status{Code: wire.Unimplemented, Text: service + "/" + name + " is not supported by capsule"}
	}
	defer s.quiet.soon()
	answer, err := m(s, request)
	return answer, statusOf(err)
}

// statusOf gives an error the code by which containerd acts.
func statusOf(err error) error {
	var status *wire.Status
	var f *fault.Fault
	if err == nil || errors.As(err, &status) || !errors.As(err, &f) {
		return err
	}
	code := wire.Unknown
	switch f.Code {
	case fault.NotFound:
		code = wire.NotFound
	case fault.Unsupported:
		code = wire.Unimplemented
	case fault.InvalidBundle, fault.InvalidValue, fault.OutOfRange, fault.MissingField:
		code = wire.InvalidArgument
	}
	text := err.Error()
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	if remedy := f.Remedy(); remedy != "" {
		text += " (" + remedy + ")"
	}
	return &wire.Status{Code: code, Text: text}
}

func wrong(code wire.Code, text string) error { return &wire.Status{Code: code, Text: text} }

// find looks a process up: of every request the first field is the container's id.
func (s *Service) find(id, exec string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	switch {
	case t == nil || t.first == nil:
		return nil, wrong(wire.NotFound, "container "+id+" does not exist")
	case exec == "":
		return t.first, nil
	case t.execs[exec] == nil:
		return nil, wrong(wire.NotFound, "container "+id+" has no process "+exec)
	}
	return t.execs[exec], nil
}

// onThread calls what makes a process: its thread must not be another goroutine's
// meanwhile. A thread on which it failed may not be what it was and is given up.
func onThread(call func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := call()
		if err == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Root is where the state of a bundle's container is.
func Root(bundle string) string { return filepath.Join(bundle, "capsule") }

// Rootfs is where its root is mounted.
func Rootfs(bundle string) string { return filepath.Join(bundle, "rootfs") }

func (s *Service) create(m wire.Message) (wire.Message, error) {
	id, bundle := m.String(1), m.String(2)
	if m.String(8) != "" {
		return nil, wrong(wire.Unimplemented, "capsule has no checkpoints to begin from")
	}
	o, err := optionsOf(m.Message(10))
	if err != nil {
		return nil, err
	}
	rt := &container.Runtime{Store: container.Store{Root: Root(bundle)}, Filters: s.Filters, SeccompHelper: s.SeccompHelper, Systemd: o.systemd, Debug: s.Debug, Warn: s.Log}
	t := &task{id: id, bundle: bundle, rt: rt, execs: map[string]*process{}}
	s.mu.Lock()
	if s.tasks[id] != nil {
		s.mu.Unlock()
		return nil, wrong(wire.AlreadyExists, "container "+id+" exists")
	}
	s.tasks[id] = t // its place
	s.mu.Unlock()
	p, err := s.build(t, o, m)
	s.mu.Lock()
	if err != nil {
		delete(s.tasks, id)
		s.mu.Unlock()
		return nil, err
	}
	t.first = p
	s.mu.Unlock()
	defer p.order.Unlock() // an end is told after this
	pid := uint64(p.number())
	io := wire.Message(nil).PutString(1, m.String(5)).PutString(2, m.String(6)).PutString(3, m.String(7)).PutBool(4, m.Bool(4))
	event := wire.Message(nil).PutString(1, id).PutString(2, bundle)
	for mount := range m.Each(3) {
		event = event.Put(3, mount)
	}
	s.events.publish("/tasks/create", "TaskCreate", event.Put(4, io).PutUint(6, pid))
	return wire.Message(nil).PutUint(1, pid), nil
}

// build mounts the root and makes the container, whose first process it gives with its
// order held. On failure nothing is left of either.
func (s *Service) build(t *task, o options, m wire.Message) (p *process, err error) {
	config, err := container.Load(t.bundle)
	if err != nil {
		return nil, err
	}
	if config.Process == nil || config.Linux == nil {
		return nil, wrong(wire.InvalidArgument, "the configuration has no process, or is for another platform")
	}
	if t.verdict, err = s.judged(t, config); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && t.verdict != nil {
			t.verdict.refuse(err)
		}
	}()
	t.ownPids = ownPids(config)
	// Of the configuration nothing stays but this, unless there is a verdict.
	uids, gids := config.Linux.UIDMappings, config.Linux.GIDMappings
	t.owner = func(p *specs.Process) (uint32, uint32) {
		if o.uid != 0 || o.gid != 0 {
			return o.uid, o.gid
		}
		return container.HostID(p.User.UID, uids), container.HostID(p.User.GID, gids)
	}
	var mounts []wire.Message
	for mount := range m.Each(3) {
		if err := mount.Check(); err != nil {
			return nil, wrong(wire.InvalidArgument, "rootfs: "+err.Error())
		}
		mounts = append(mounts, mount)
	}
	if err := mountRootfs(Rootfs(t.bundle), mounts); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unmountRootfs(Rootfs(t.bundle))
		}
	}()
	uid, gid := t.owner(config.Process)
	streams := newStreams([3]string{m.String(5), m.String(6), m.String(7)}, m.Bool(4))
	if err := streams.openAll(uid, gid); err != nil {
		return nil, err
	}
	if t.verdict != nil {
		if err := t.verdict.divert(streams); err != nil {
			streams.close()
			return nil, err
		}
	}
	p = newProcess(t, "", streams)
	p.order.Lock()
	if err := onThread(func() error { return t.rt.CreateAs(t.id, t.bundle, config, streams.stdio()) }); err != nil {
		streams.close()
		return nil, err
	}
	streams.given()
	pid, err := t.rt.Pid(t.id)
	t.unwatch = s.watchOOM(t)
	if err == nil {
		if t.verdict != nil {
			t.verdict.walls.built(pid)
			p.look = t.verdict.walls.held
		}
		err = p.watch(pid, func() { s.end(p) })
	}
	if err != nil {
		t.unwatch()
		err = errors.Join(err, t.rt.Delete(t.id, true))
		streams.close()
		return nil, err
	}
	return p, nil
}

// ownPids tells whether a container's processes all end with its first.
func ownPids(c *specs.Spec) bool {
	for _, n := range c.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			return n.Path == ""
		}
	}
	return false
}

// end is called once a process is gone.
func (s *Service) end(p *process) {
	if p.exec == "" && !p.task.ownPids {
		if err := p.task.rt.Kill(p.task.id, killSignal, true); err != nil && !errors.Is(err, &fault.Fault{Code: fault.NotFound}) {
			s.Log(err)
		}
	}
	p.order.Lock()
	defer p.order.Unlock()
	if p.exec == "" {
		p.task.unwatch()
		if p.task.verdict != nil {
			p.task.verdict.finish(p)
		}
		s.tellOOM(p.task)
	}
	status, at := p.result()
	close(p.ended)
	id := p.exec
	if id == "" {
		id = p.task.id
	}
	s.events.publish("/tasks/exit", "TaskExit", wire.Message(nil).PutString(1, p.task.id).PutString(2, id).
		PutUint(3, uint64(p.number())).PutUint(4, uint64(status)).PutTime(5, at))
	go func() {
		p.streams.finish(time.Hour) // a reader may come late; Delete does not wait as long
		s.quiet.soon()
	}()
}

func (s *Service) start(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), m.String(2))
	if err != nil {
		return nil, err
	}
	p.order.Lock()
	defer p.order.Unlock()
	if p.startedAlready() {
		return nil, wrong(wire.FailedPrecondition, "the process was started already")
	}
	if p.exec != "" {
		return s.startExec(p)
	}
	at := time.Now()
	if err := onThread(func() error { return p.task.rt.Start(p.task.id) }); err != nil {
		if v := p.task.verdict; v != nil {
			v.refuse(err)
		}
		return nil, err
	}
	p.setStarted()
	if v := p.task.verdict; v != nil {
		v.begin(at)
	}
	pid := uint64(p.number())
	s.events.publish("/tasks/start", "TaskStart", wire.Message(nil).PutString(1, p.task.id).PutUint(2, pid))
	return wire.Message(nil).PutUint(1, pid), nil
}

func (p *process) startedAlready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

func (p *process) setStarted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = true
}

// delete takes away what has ended, or was never started.
func (s *Service) delete(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), m.String(2))
	if err != nil {
		return nil, err
	}
	t := p.task
	if p.number() != 0 && p.startedAlready() && !p.done() {
		return nil, wrong(wire.FailedPrecondition, "the process is running: kill it first")
	}
	if p.exec == "" {
		if err := t.rt.Delete(t.id, true); err != nil {
			return nil, err
		}
	}
	if p.exec == "" || !p.giveUp() {
		<-p.ended
	}
	p.streams.finish(draining)
	if p.exec == "" {
		unmountRootfs(Rootfs(t.bundle))
		_ = os.Remove(Root(t.bundle)) // empty; containerd removes the bundle
	}
	s.mu.Lock()
	if p.exec == "" {
		delete(s.tasks, t.id)
	} else {
		delete(t.execs, p.exec)
	}
	s.mu.Unlock()
	status, at := p.result()
	pid := uint64(p.number())
	if p.exec == "" {
		s.events.publish("/tasks/delete", "TaskDelete", wire.Message(nil).PutString(1, t.id).PutUint(2, pid).PutUint(3, uint64(status)).PutTime(4, at).PutString(5, t.id))
	}
	return wire.Message(nil).PutUint(1, pid).PutUint(2, uint64(status)).PutTime(3, at), nil
}

// giveUp ends a process that was never started.
func (p *process) giveUp() bool {
	p.order.Lock()
	defer p.order.Unlock()
	if p.number() != 0 || p.done() {
		return false
	}
	p.setStarted()
	close(p.ended)
	return true
}

func (s *Service) wait(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), m.String(2))
	if err != nil {
		return nil, err
	}
	<-p.ended
	status, at := p.result()
	return wire.Message(nil).PutUint(1, uint64(status)).PutTime(2, at), nil
}

func (s *Service) connect(m wire.Message) (wire.Message, error) {
	pid := 0
	if p, err := s.find(m.String(1), ""); err == nil {
		pid = p.number()
	}
	return wire.Message(nil).PutUint(1, uint64(os.Getpid())).PutUint(2, uint64(pid)).PutString(3, "v2"), nil
}

// shutdown ends the service when it has no container: containerd asks with each that it
// deletes.
func (s *Service) shutdown(wire.Message) (wire.Message, error) {
	s.mu.Lock()
	left := len(s.tasks)
	s.mu.Unlock()
	if left > 0 {
		return nil, nil
	}
	go func() {
		s.events.flush(answering)
		s.Exit()
	}()
	return nil, nil
}

// Abandoned takes away what a service left of a container when it was killed, and gives
// the answer to containerd's call.
func Abandoned(id, bundle string, log func(error)) (wire.Message, error) {
	rt := &container.Runtime{Store: container.Store{Root: Root(bundle)}, Warn: log}
	pid, bad := rt.Pid(id)
	if bad != nil {
		pid = 0 // it was not built
	}
	err := rt.Delete(id, true)
	unmountRootfs(Rootfs(bundle))
	if err != nil {
		return nil, err
	}
	_ = os.Remove(Root(bundle)) // empty; containerd removes the bundle
	return wire.Message(nil).PutUint(1, uint64(pid)).PutUint(2, 128+uint64(killSignal)).PutTime(3, time.Now()), nil
}
