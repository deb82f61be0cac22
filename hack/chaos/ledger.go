package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// findings are the deviations.
type findings struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

func (f *findings) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, fmt.Sprintf(format, args...))
}

func (f *findings) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list
}

// ledger knows every execution that was wanted, from before its Start.
type ledger struct {
	mu   sync.Mutex
	runs map[string]*run // by id; guarded by mu
}

func (l *ledger) enter(p *plan) *run {
	r := &run{plan: p}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[p.id] = r
	return r
}

func (l *ledger) of(id string) *run {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs[id]
}

func (l *ledger) all() []*run {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*run, 0, len(l.runs))
	for _, r := range l.runs {
		all = append(all, r)
	}
	return all
}

// run is one execution and what became of it.
type run struct {
	*plan
	mu       sync.Mutex
	started  bool      // somebody was told so
	shimHits int       // its shim was sent SIGKILL
	orphaned time.Time // its owning client was killed; zero: it was not
	verdict  string    // digest of the response; empty: none yet
	first    string    // the beginning of that response
	outcome  string    // for the table
	status   string    // as List is to show it
}

func (r *run) markShim(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shimHits += n
}

func (r *run) markStarted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = true
}

func (r *run) markOrphaned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orphaned = time.Now()
}

// Outcomes for the table, besides the deviations.
const (
	asExpected = "as expected"
	lost       = "shim lost"
	killed     = "killed by caller"
	never      = "never started"
	damaged    = "damaged"
)

// orphanTime is the longest that an execution lives without its owner: ten
// seconds, and what the kill takes.
const orphanTime = 40 * time.Second

// judge compares a response with what may be, and keeps it. The first verdict
// is the one that all later ones must be equal to.
func (r *run) judge(response *spec.Response) error {
	document := response.Encode(false)
	sum := sha256.Sum256(document)
	digest := hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.verdict != "" {
		if r.verdict != digest {
			return r.deviation(response, "this is another verdict than before ("+r.outcome+"): "+r.first)
		}
		return nil
	}
	r.first = string(document[:min(len(document), 2000)])
	r.verdict, r.status = digest, string(response.Status)+"/"+string(response.Termination.Reason)
	code := ""
	if response.Error != nil {
		code = response.Error.Code
	}
	wrong := r.mismatch(response)
	switch {
	case wrong == "" && !r.orphaned.IsZero() && response.Timestamps.Completed != nil && response.Timestamps.Completed.Sub(r.orphaned) > orphanTime:
		r.outcome = "outlived its client"
		return r.deviation(response, r.outcome)
	case wrong == "":
		r.outcome = asExpected
	case r.shimHits > 0 && response.Status == spec.StatusError && response.Termination.Reason == spec.ReasonShimLost && code == string(fault.ShimLost):
		r.outcome = lost
	case !r.orphaned.IsZero() && response.Status == spec.StatusKilled && response.Termination.Reason == spec.ReasonKilledByCaller:
		r.outcome = killed
	default:
		r.outcome = "wrong: " + string(response.Termination.Reason)
		return r.deviation(response, wrong)
	}
	return nil
}

// deviation describes a response that should not be. Locked.
func (r *run) deviation(response *spec.Response, why string) error {
	short := *response
	for _, s := range []**string{&short.Stdout, &short.Stderr} {
		if *s != nil && len(**s) > 200 {
			*s = nil
		}
	}
	return fmt.Errorf("%s execution %s: %s; shim killed %d times, orphaned %v; response %s",
		r.kind, r.id, why, r.shimHits, !r.orphaned.IsZero(), short.Encode(false))
}
