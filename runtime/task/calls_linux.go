package task

import (
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/runtime/wire"
)

const killSignal = unix.SIGKILL

// stdio is what a process is started with.
func (s *streams) stdio() container.Stdio {
	o := container.Stdio{Streams: s.give}
	if s.terminal {
		o.Terminal = s.attach
	}
	return o
}

func (s *Service) state(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), m.String(2))
	if err != nil {
		return nil, err
	}
	a := wire.Message(nil).PutString(1, p.task.id).PutString(2, p.task.bundle).PutUint(3, uint64(p.number()))
	switch {
	case p.done():
		a = a.PutUint(4, stateStopped)
	case !p.startedAlready():
		a = a.PutUint(4, stateCreated)
	default:
		c, err := p.task.rt.Glance(p.task.id)
		if err != nil {
			return nil, err
		}
		if c.State().Status == "paused" {
			a = a.PutUint(4, statePaused)
		} else {
			a = a.PutUint(4, stateRunning)
		}
	}
	io := p.streams
	a = a.PutString(5, io.paths[0]).PutString(6, io.paths[1]).PutString(7, io.paths[2]).PutBool(8, io.terminal)
	if p.done() {
		status, at := p.result()
		a = a.PutUint(9, uint64(status)).PutTime(10, at)
	}
	return a.PutString(11, p.exec), nil
}

// exec notes a further process; start executes it.
func (s *Service) exec(m wire.Message) (wire.Message, error) {
	id, exec := m.String(1), m.String(2)
	first, err := s.find(id, "")
	if err != nil {
		return nil, err
	}
	if exec == "" {
		return nil, wrong(wire.InvalidArgument, "exec_id is missing")
	}
	spec, err := specjson.ReadProcess(m.Message(7).Message(2))
	if err != nil {
		return nil, err
	}
	spec.Terminal = m.Bool(3)
	p := newProcess(first.task, exec, newStreams([3]string{m.String(4), m.String(5), m.String(6)}, m.Bool(3)))
	p.spec = spec
	s.mu.Lock()
	if first.task.execs[exec] != nil {
		s.mu.Unlock()
		return nil, wrong(wire.AlreadyExists, "container "+id+" has a process "+exec)
	}
	first.task.execs[exec] = p
	s.mu.Unlock()
	s.events.publish("/tasks/exec-added", "TaskExecAdded", wire.Message(nil).PutString(1, id).PutString(2, exec))
	return nil, nil
}

// startExec executes a noted process. The caller holds its order.
func (s *Service) startExec(p *process) (wire.Message, error) {
	t := p.task
	uid, gid := t.owner(p.spec)
	if err := p.streams.openAll(uid, gid); err != nil {
		return nil, err
	}
	var pid int
	err := onThread(func() error {
		started, err := t.rt.Exec(t.id, p.spec, p.streams.stdio())
		if err == nil {
			pid = started.Pid
			started.Leave()
		}
		return err
	})
	p.streams.given()
	if err == nil {
		if err = p.watch(pid, func() { s.end(p) }); err != nil {
			_ = unix.Kill(pid, killSignal) // our child, which nobody else waits for
			_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
		}
	}
	if err != nil {
		p.streams.close()
		return nil, err
	}
	p.setStarted()
	s.events.publish("/tasks/exec-started", "TaskExecStarted", wire.Message(nil).PutString(1, t.id).PutString(2, p.exec).PutUint(3, uint64(pid)))
	return wire.Message(nil).PutUint(1, uint64(pid)), nil
}

func (s *Service) kill(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), m.String(2))
	if err != nil {
		return nil, err
	}
	sig, all := unix.Signal(m.Uint(3)), m.Bool(4)
	if sig > 64 {
		return nil, wrong(wire.InvalidArgument, "signal: is no signal")
	}
	switch {
	case p.number() == 0:
		return nil, wrong(wire.FailedPrecondition, "the process was not started")
	case p.exec != "":
		err = p.signal(sig)
	case p.done() && !all:
		err = unix.ESRCH
	default:
		if p.task.verdict != nil {
			p.task.verdict.told(sig)
		}
		err = p.task.rt.Kill(p.task.id, sig, all)
	}
	if err != nil && (err == unix.ESRCH || p.done()) {
		return nil, wrong(wire.NotFound, "process already finished")
	}
	return nil, err
}

func (s *Service) pids(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), "")
	if err != nil {
		return nil, err
	}
	list, err := p.task.rt.Processes(p.task.id)
	if err != nil {
		return nil, err
	}
	var a wire.Message
	for _, pid := range list {
		a = a.Put(1, wire.Message(nil).PutUint(1, uint64(pid)))
	}
	return a, nil
}

func (s *Service) pause(m wire.Message) (wire.Message, error) {
	return s.freeze(m, true, "/tasks/paused", "TaskPaused")
}

func (s *Service) resume(m wire.Message) (wire.Message, error) {
	return s.freeze(m, false, "/tasks/resumed", "TaskResumed")
}

func (s *Service) freeze(m wire.Message, on bool, topic, event string) (wire.Message, error) {
	p, err := s.find(m.String(1), "")
	if err != nil {
		return nil, err
	}
	if err := p.task.rt.Pause(p.task.id, on); err != nil {
		return nil, err
	}
	s.events.publish(topic, event, wire.Message(nil).PutString(1, p.task.id))
	return nil, nil
}

func (s *Service) resize(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), m.String(2))
	if err != nil {
		return nil, err
	}
	return nil, p.streams.resize(uint32(m.Uint(3)), uint32(m.Uint(4)))
}

func (s *Service) closeIO(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), m.String(2))
	if err != nil {
		return nil, err
	}
	if m.Bool(3) {
		p.streams.closeStdin()
	}
	return nil, nil
}

func (s *Service) update(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), "")
	if err != nil {
		return nil, err
	}
	r, err := specjson.ReadResources(m.Message(2).Message(2))
	if err != nil {
		return nil, err
	}
	return nil, p.task.rt.Update(p.task.id, r)
}
