package supervisor

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// largeResult is the size of a result, in bytes, above which one is collected
// at a time: several times as much is in memory meanwhile. Shims of this version
// leave large output in files.
const largeResult = 8 << 20

// remembered is what whoever collects an execution still has of it, and need not read
// from its directory. Each part may be nil.
type remembered struct {
	rec     *shimapi.Record
	request []byte // without stdin; comes with rec
	// response is what callers were told, and so are to find.
	response *spec.Response
}

// collect moves an ended execution into the history and removes its directory.
// With wait it waits for the end of a shim that has delivered its result. An
// execution that is not to be collected is errAlive or os.ErrNotExist.
func (s *Supervisor) collect(id string, wait bool, has remembered) (*spec.Response, error) {
	dir := s.state.Execution(id)
	for range 3 {
		lock, err := lockDead(dir, wait)
		if err != nil {
			return nil, err
		}
		if !needsSweep(dir) {
			defer lock.Close()
			failpoint.Here("supervisor.collect.locked")
			if info, err := os.Lstat(dir.Result()); err == nil && info.Size() > largeResult {
				s.large.Lock()
				defer s.large.Unlock()
			}
			return s.store(id, dir, has)
		}
		lock.Close() // the sweep locks it itself
		if !s.sweepOne(id)() {
			break
		}
	}
	return nil, fault.New(fault.IO, "collect execution", "what its shim left cannot be removed").WithPath(string(dir))
}

// needsSweep tells whether a dead shim left more than its directory, or no result.
func needsSweep(dir layout.Dir) bool {
	if _, err := os.Lstat(dir.Record()); err != nil {
		return true // a foreground execution: all of it goes
	}
	_, root := os.Lstat(dir.Rootfs())
	_, result := os.Lstat(dir.Result())
	return root == nil || result != nil && statusIn(dir) != api.StatusQueued
}

// store puts a locked execution into the history.
func (s *Supervisor) store(id string, dir layout.Dir, has remembered) (*spec.Response, error) {
	rec, recErr := has.rec, error(nil)
	if rec == nil {
		rec, recErr = shimapi.ReadRecord(dir)
	}
	r, err := has.response, error(nil)
	var data []byte
	if r == nil {
		data, err = readResult(dir)
	}
	queued := errors.Is(err, os.ErrNotExist)
	switch {
	case queued && (recErr == nil || errors.Is(recErr, os.ErrNotExist)):
		return nil, errWaits
	case err != nil && !queued:
		return nil, fault.Wrap(fault.IO, "read result", err).WithPath(dir.Result())
	}
	if recErr != nil {
		rec = s.unreadable(id, dir, recErr)
	}
	if queued {
		// It waits for a turn that nobody can give it any more.
		r = spec.Lost(id, fault.From(recErr, fault.StateUnreadable), rec.Created)
	} else if r == nil {
		r = s.recorded(id, rec, data)
	}
	request, err := has.request, error(nil)
	if request == nil {
		request, err = requestOf(dir, rec.Digest)
	}
	if err != nil {
		s.emit(api.EventUnreadable, id, map[string]string{"record": "request.json", "error": err.Error()})
	}
	k := &kept{}
	defer k.close()
	entry, err := historyEntry(rec, dir, r, k)
	if is(err, fault.StateUnreadable) {
		s.emit(api.EventUnreadable, id, map[string]string{"record": "output", "error": err.Error()})
		r = withoutOutput(r, err)
		entry, err = historyEntry(rec, dir, r, k)
	}
	if err != nil {
		return r, err
	}
	entry.Request = request
	if err := s.history(func(h *history.Store) error { return h.Put(entry) }); err != nil {
		return r, err
	}
	failpoint.Here("supervisor.collect.stored")
	return r, s.discard(id)
}

// unreadable tells of a damaged record, and is what stands for it.
func (s *Supervisor) unreadable(id string, dir layout.Dir, damage error) *shimapi.Record {
	s.emit(api.EventUnreadable, id, map[string]string{"record": "execution.json", "error": damage.Error()})
	rec := &shimapi.Record{ExecutionID: id, Owner: uint32(os.Geteuid())}
	if info, err := os.Lstat(dir.Record()); err == nil {
		rec.Created = info.ModTime().UTC()
	}
	return rec
}

// recorded decodes a result, and tells when it is damaged.
func (s *Supervisor) recorded(id string, rec *shimapi.Record, data []byte) *spec.Response {
	r := decodeResult(id, rec.Created, data)
	if r.Error != nil && r.Error.Code == string(fault.StateUnreadable) && r.Termination.Reason == spec.ReasonShimLost {
		s.emit(api.EventUnreadable, id, map[string]string{"record": "result.json", "error": r.Error.Message})
	}
	return r
}

// withoutOutput is a response whose output is damaged: a success without it would
// be a lie.
func withoutOutput(r *spec.Response, cause error) *spec.Response {
	short := *r
	short.OutputElided = false
	short.Output = &spec.Output{
		Stdout: spec.StreamCount{BytesTotal: r.Output.Stdout.BytesTotal, Truncated: r.Output.Stdout.BytesTotal > 0},
		Stderr: spec.StreamCount{BytesTotal: r.Output.Stderr.BytesTotal, Truncated: r.Output.Stderr.BytesTotal > 0},
	}
	short.Warnings = append(slices.Clone(r.Warnings), "output is lost: "+cause.Error())
	if r.Status == spec.StatusSuccess {
		short.Status, short.Error = spec.StatusError, spec.ErrorFrom(cause)
	}
	return &short
}

// historyEntry is an execution as the history keeps it, but for its request. Large output it has in
// the files of k, which is the caller's to close when the entry is stored.
func historyEntry(rec *shimapi.Record, dir layout.Dir, r *spec.Response, k *kept) (history.Entry, error) {
	e := history.Entry{Record: history.Record{Summary: summaryOf(rec, ""), Digest: rec.Digest}}
	describe(&e.Summary, r)
	var err1, err2 error
	if r.OutputElided {
		if err := k.open(dir, r.Output); err != nil {
			return e, err
		}
		e.StdoutFrom, e.StdoutBytes = k.streams[0].from.(io.ReaderAt), k.streams[0].size
		e.StderrFrom, e.StderrBytes = k.streams[1].from.(io.ReaderAt), k.streams[1].size
	} else {
		e.Stdout, err1 = r.StdoutBytes()
		e.Stderr, err2 = r.StderrBytes()
	}
	if r.Output != nil && r.Output.Stdout.BytesKept+r.Output.Stderr.BytesKept > 0 {
		e.Times, _ = os.ReadFile(dir.Times()) // without them the times are not known
	}
	head := *r
	head.Stdout, head.Stderr, head.StdoutEncoding, head.StderrEncoding = nil, nil, "", ""
	e.Response = head.Encode(false)
	return e, errors.Join(err1, err2)
}

// requestOf is the recorded request without its stdin, which may be large; nil: there is
// none. With an error it is what can still be read of it, and the error what is wrong.
// digest may be unknown.
func requestOf(dir layout.Dir, digest string) (request []byte, damage error) {
	data, err := os.ReadFile(dir.Request())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if digest != "" && digestOf(data) != digest {
		damage = errors.New("it is not the request that was recorded")
	}
	req, err := spec.DecodeResolved(data)
	switch {
	case err != nil:
		return nil, cmp.Or(damage, err)
	case req.Stdin == nil && damage == nil:
		return data, nil
	}
	req.Stdin = nil
	return req.Encode(), damage
}

// discard removes a directory that is locked, so that nobody sees it half removed.
func (s *Supervisor) discard(id string) error {
	gone := s.state.Gone(id)
	if err := os.Rename(string(s.state.Execution(id)), gone); err != nil {
		return fault.Wrap(fault.IO, "remove execution", err)
	}
	failpoint.Here("supervisor.collect.renamed")
	if err := os.RemoveAll(gone); err != nil {
		return fault.Wrap(fault.IO, "remove execution", err).WithPath(gone)
	}
	return nil
}

// collectAll collects every ended execution that nobody minds, and finishes
// removals that were interrupted. It returns what it could not do.
func (s *Supervisor) collectAll() error {
	entries, err := os.ReadDir(s.state.Executions())
	if err != nil {
		return fault.Wrap(fault.IO, "read executions", err)
	}
	var errs []error
	for _, e := range entries {
		if id, ok := gone(e.Name()); ok {
			errs = append(errs, os.RemoveAll(s.state.Gone(id)))
			continue
		}
		if _, err := executionID(e.Name()); err != nil || s.minds(e.Name()) {
			continue
		}
		r, err := s.collect(e.Name(), false, remembered{})
		if err == nil {
			s.tellCollected(e.Name(), r)
		} else if !errors.Is(err, errAlive) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// gone takes the id out of the name of a directory that is being removed.
func gone(name string) (id string, ok bool) {
	const prefix = "gone-"
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return "", false
	}
	id = name[len(prefix):]
	_, err := executionID(id)
	return id, err == nil
}

func (s *Supervisor) tellCollected(id string, r *spec.Response) {
	kind := api.EventCollected
	if r.Termination.Reason == spec.ReasonShimLost {
		kind = api.EventLost
	}
	s.emit(kind, id, outcome(r))
}

// outcome are the attributes of an event about an ended execution. They are copies: those of
// a decoded response would keep all of its strings for as long as the event is kept.
func outcome(r *spec.Response) map[string]string {
	a := map[string]string{"status": strings.Clone(string(r.Status)), "reason": strings.Clone(string(r.Termination.Reason))}
	if r.ExitCode != nil {
		a["exit_code"] = strconv.Itoa(*r.ExitCode)
	}
	if r.Signal != nil {
		a["signal"] = strconv.Itoa(*r.Signal)
	}
	if r.Error != nil {
		a["code"] = strings.Clone(r.Error.Code)
	}
	if phases, err := json.Marshal(r.Metrics.StartupPhases); err == nil && r.Metrics.StartupUS != nil {
		a["startup_us"], a["startup_phases_us"] = strconv.FormatInt(*r.Metrics.StartupUS, 10), string(phases)
	}
	return a
}
