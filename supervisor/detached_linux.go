package supervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
)

// resolve decodes a request over the defaults and the profile.
func (s *Supervisor) resolve(owner uint32, r *api.StartRequest) (*spec.Request, error) {
	if p := s.policy.Load(); p != nil {
		base, err := p.Base(r.Profile, owner)
		if err != nil {
			return nil, err
		}
		return spec.DecodeOver(base, r.Request)
	}
	base := spec.Default()
	if r.Profile != "" {
		if err := base.ApplyProfile(r.Profile); err != nil {
			return nil, err
		}
	}
	return spec.DecodeOver(base, r.Request)
}

// launch records an execution that outlives its caller and sets it going. Once
// it is recorded nothing that dies loses it.
func (s *Supervisor) launch(owner uint32, r *api.StartRequest) (*api.Started, error) {
	id, err := executionID(r.ID)
	if err != nil {
		return nil, err
	}
	req, err := s.resolve(owner, r)
	if err != nil {
		return nil, err
	}
	if err := s.permitFor(id, owner, req); err != nil {
		return nil, err
	}
	data := req.Encode()
	rec := &shimapi.Record{Version: shimapi.RecordVersion, ExecutionID: id, Owner: owner, Created: now(),
		Digest: digestOf(data), Command: req.Command, Labels: req.Labels,
		MemoryBytes: req.Resources.MemoryBytes, MaxPids: req.Resources.MaxPids, TimeoutMS: timeoutOf(req),
		StreamStdin: r.StreamStdin, KillOnDisconnect: r.KillOnDisconnect, HoldOutput: r.HoldOutput, InlineStdin: req.Stdin != nil}
	if r.ID != "" {
		if known, err := s.existing(rec); known != nil || err != nil {
			return known, err
		}
	}
	ticket, err := s.admit(rec)
	if err != nil {
		return nil, err
	}
	ready, err := s.takeReady(ticket, owner, req, s.state.Execution(id))
	var lock *os.File
	if err == nil {
		lock, err = s.write(rec, data, ready)
	}
	if err != nil {
		ticket.release()
		if is(err, fault.InvalidValue) && r.ID != "" {
			return s.overtaken(rec, err)
		}
		return nil, err
	}
	started := &api.Started{Summary: summaryOf(rec, api.StatusStarting), Created: true}
	if s.daemon == nil {
		defer lock.Close() // the shim has its own copy
		if err := s.makeRoom(s.state.Execution(id)); err != nil {
			return nil, err
		}
		conn, process, err := s.startDetached(rec, data, lock, nil)
		if err != nil {
			return nil, errors.Join(err, s.discard(id))
		}
		go process.wait() // whoever lives on reaps it
		return started, conn.Close()
	}
	if s.daemon.mind(s, rec, data, lock, ticket, ready).queued() {
		started.Status = api.StatusQueued
	}
	return started, nil
}

// now is the time as a record has it: without the monotonic clock, which is not recorded
// and would order executions otherwise.
func now() time.Time { return time.Now().Round(0).UTC() }

// digestOf tells one resolved request from another.
func digestOf(request []byte) string {
	sum := sha256.Sum256(request)
	return hex.EncodeToString(sum[:])
}

// othersOutput is how much output of each stream is kept for other users, in
// bytes: it stands in the state directory, which is memory on most hosts.
const othersOutput = 16 << 20

// refuseForOthers keeps a caller that this process has more rights than from
// using them: host paths are opened with ours, and a filter of the caller's own
// may let through what the host denies him, user namespaces among it.
func refuseForOthers(owner uint32, req *spec.Request, mostOutput int64) error {
	if owner == uint32(os.Geteuid()) || owner == 0 {
		return nil
	}
	i := req.Isolation
	const hint = "Run it without the daemon (--embedded), with your own rights."
	if i.Seccomp.Custom != nil {
		return fault.New(fault.NotAuthorised, "", "this supervisor takes filters from its own user alone").WithField("/isolation/seccomp").WithHint(hint)
	}
	if i.Backend == spec.BackendProcess {
		return fault.New(fault.NotAuthorised, "", "this supervisor would run the command as its own user").WithField("/isolation/backend").WithHint(hint)
	}
	if i.Network {
		return fault.New(fault.NotAuthorised, "", "this supervisor's network is its own user's").WithField("/isolation/network").WithHint(hint)
	}
	if mostOutput > 0 && req.Resources.MaxOutputBytes > mostOutput {
		return fault.New(fault.OutOfRange, "", "at most "+strconv.FormatInt(mostOutput, 10)+" for other users of this supervisor").
			WithField("/resources/max_output_bytes").WithHint(hint)
	}
	for field, used := range map[string]bool{
		"/isolation/readonly_paths": len(i.ReadonlyPaths) > 0,
		"/isolation/writable_paths": len(i.WritablePaths) > 0,
		"/isolation/bind_mounts":    len(i.BindMounts) > 0,
		"/isolation/rootfs":         i.Rootfs != nil,
	} {
		if used {
			return fault.New(fault.PathRefused, "", "this supervisor opens host paths with rights that the caller does not have").WithField(field).WithHint(hint)
		}
	}
	return nil
}

// existing is the answer to a Start of an id that is known; nil when it is not.
func (s *Supervisor) existing(rec *shimapi.Record) (*api.Started, error) {
	e, err := s.find(rec.ExecutionID)
	if is(err, fault.NotFound) {
		was, err := s.removed(rec.ExecutionID)
		if was {
			err = taken("an execution with this id was removed; ids are not used twice")
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if e.summary.Owner != rec.Owner || e.digest != rec.Digest {
		return nil, taken("another execution has this id")
	}
	return &api.Started{Summary: e.summary}, nil
}

// overtaken answers a Start whose id another one took first, which may not have
// written its record yet. Without a record, a foreground execution, it is refused.
func (s *Supervisor) overtaken(rec *shimapi.Record, refusal error) (*api.Started, error) {
	for pause := shortPause; pause < longPause/2; pause *= 2 {
		if known, err := s.existing(rec); known != nil || err != nil {
			return known, err
		}
		time.Sleep(pause)
	}
	return nil, refusal
}

func is(err error, code fault.Code) bool {
	return err != nil && fault.From(err, "").Code == code
}

func taken(message string) error {
	return fault.New(fault.InvalidValue, "", message).WithField("/execution_id").WithHint("Leave the id out, or choose another.")
}

// ticket is a place among the executions that run; nil: places are not counted.
type ticket struct{ *admission.Ticket }

func (t *ticket) release() {
	if t != nil {
		t.Release()
	}
}

// waits tells whether the turn has not come.
func (t *ticket) waits() bool {
	if t == nil {
		return false
	}
	select {
	case <-t.Ready():
		return false
	default:
		return true
	}
}

func (s *Supervisor) admit(rec *shimapi.Record) (*ticket, error) {
	if s.daemon == nil {
		return nil, nil
	}
	t, err := s.daemon.queue.AdmitWithin(rec.Owner, rec.MemoryBytes, s.bounds(rec.Owner))
	if err != nil {
		s.emit(api.EventRefused, rec.ExecutionID, map[string]string{"code": string(fault.From(err, "").Code)})
		return nil, err
	}
	return &ticket{t}, nil
}

// write makes the locked directory of an execution with its request and its
// record, in this order: a directory without a record belongs to nobody. The
// directory of a shim that is ready is given the name of the execution.
func (s *Supervisor) write(rec *shimapi.Record, request []byte, ready *ready) (lock *os.File, err error) {
	dir := s.state.Execution(rec.ExecutionID)
	if ready != nil {
		lock = ready.lock
	} else if lock, err = makeLocked(dir); err != nil {
		return nil, err
	}
	failpoint.Here("supervisor.start.directory")
	if err = layout.WriteUnseen(dir.Request(), request); err == nil {
		failpoint.Here("supervisor.start.request")
		err = rec.Write(dir)
	}
	failpoint.Here("supervisor.start.record")
	if err != nil && ready != nil {
		s.daemon.pool.giveBack(ready) // with its directory, which tells of its cgroup
	} else if err != nil {
		err = errors.Join(err, os.RemoveAll(string(dir)))
		lock.Close()
	}
	if err != nil {
		return nil, fault.From(err, fault.IO).WithHint("Make room in the state directory, or set CAPSULE_STATE to another.")
	}
	return lock, nil
}

// takeReady takes a shim from the pool for an execution that may begin at once, and
// gives its directory the name of the execution. Nil: there is none, or file systems
// that cannot rename so. E1001: the execution exists.
func (s *Supervisor) takeReady(t *ticket, owner uint32, req *spec.Request, dir layout.Dir) (*ready, error) {
	if s.daemon == nil || t.waits() {
		return nil, nil
	}
	r := s.daemon.pool.take(owner, req)
	if r == nil {
		return nil, nil
	}
	err := r.name(dir)
	if err == nil {
		return r, nil
	}
	s.daemon.pool.giveBack(r)
	if is(err, fault.InvalidValue) {
		return nil, err
	}
	return nil, nil
}

// startDetached starts the shim of a recorded execution, which begins by itself:
// the one that is ready, or when that is dead or nil, a new one. It takes the request
// from the record when it is not given, or is long.
func (s *Supervisor) startDetached(rec *shimapi.Record, request []byte, lock *os.File, ready *ready) (*connection, *process, error) {
	boot := s.bootstrap(rec.ExecutionID, rec.Owner, rec.Command)
	if len(request) <= shimapi.RequestMax {
		boot.Request = request
	}
	boot.StreamStdin, boot.OutputFiles = rec.StreamStdin, true
	boot.HoldStdout, boot.HoldStderr = rec.HoldOutput, rec.HoldOutput
	if ready != nil {
		switch begun, err := ready.tell(boot); {
		case err != nil:
			return nil, nil, err
		case begun:
			return newConnection(ready.conn), ready.process, nil
		}
	}
	conn, process, err := s.startShim(boot, lock)
	if err != nil {
		return nil, nil, err
	}
	return newConnection(conn.(*net.UnixConn)), process, nil // connectionOf made it
}
