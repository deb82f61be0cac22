package supervisor

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/admission"
)

// answerOf is a response as a shim encodes it.
func answerOf(id string, output bool) *spec.Response {
	r := &spec.Response{ExecutionID: id, Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited},
		Output: &spec.Output{Stdout: spec.StreamCount{BytesTotal: 3, BytesKept: 3}}, Timestamps: spec.Timestamps{Created: time.Now()}}
	if output {
		r.SetOutput([]byte(`,"stdout":"`), nil)
	}
	return r
}

// TestPassable: what is passed on is whole, and of the execution.
func TestPassable(t *testing.T) {
	id := testID(1)
	long := answerOf(id, true)
	long.SetOutput(make([]byte, inlineOutput), nil)
	trick := answerOf(id, false)
	trick.Warnings = []string{`,"stdout":"`}
	for name, c := range map[string]struct {
		document []byte
		want     bool
	}{
		"whole":                       {answerOf(id, true).Encode(false), true},
		"its output stands elsewhere": {answerOf(id, false).Encode(false), false},
		"only text looks like output": {trick.Encode(false), false},
		"too long":                    {long.Encode(false), false},
		"of another execution":        {answerOf(testID(2), true).Encode(false), false},
		"none":                        {nil, false},
	} {
		if have := passable(id, c.document); have != c.want {
			t.Errorf("%s: %v", name, have)
		}
	}
}

// TestAnswer: those who pass a response on have it as its shim wrote it, and only if the
// execution is theirs. Whoever looks for it after that finds it ended.
func TestAnswer(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{MaxConcurrent: 1})
	dir, lock, rec := waits(t, s, 1, time.Now())
	defer lock.Close()
	place, err := s.admit(rec)
	if err != nil {
		t.Fatal(err)
	}
	m := &minder{s: s, rec: rec, dir: dir, ticket: place, answered: make(chan struct{}), done: make(chan struct{})}
	s.daemon.minders[rec.ExecutionID] = m
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if early := s.Answer(cancelled, rec.Owner, rec.ExecutionID); early != nil {
		t.Errorf("before its end: %s", early)
	}
	document := answerOf(rec.ExecutionID, true).Encode(false)
	m.answer(document)
	if s.daemon.queue.Snapshot().Running != 0 {
		t.Error("the turn is not given back with the answer")
	}
	if have := s.Answer(t.Context(), rec.Owner, rec.ExecutionID); string(have) != string(document) {
		t.Errorf("%s", have)
	}
	if have := s.Answer(t.Context(), 4242, rec.ExecutionID); have != nil {
		t.Errorf("to another user: %s", have)
	}
	if have := s.Answer(t.Context(), rec.Owner, testID(3)); have != nil {
		t.Errorf("of none: %s", have)
	}
	looked := make(chan string)
	go func() {
		d, err := s.As(uint32(os.Geteuid())).Inspect(context.Background(), rec.ExecutionID)
		if err != nil {
			looked <- err.Error()
			return
		}
		looked <- d.Summary.Status
	}()
	m.finish(decodeResult(rec.ExecutionID, rec.Created, document))
	if status := <-looked; status != string(spec.StatusSuccess) {
		t.Error(status)
	}
}

// TestAnswerThatStays: an ended execution that cannot be collected is not in memory
// twice, and is told as before.
func TestAnswerThatStays(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{MaxConcurrent: 1})
	dir, lock, rec := waits(t, s, 1, time.Now())
	lock.Close()
	place, err := s.admit(rec)
	if err != nil {
		t.Fatal(err)
	}
	refused := *rec
	refused.Created = time.Time{} // the history takes none without
	m := &minder{s: s, rec: rec, recorded: &refused, request: []byte("{}"), dir: dir, ticket: place, answered: make(chan struct{}), done: make(chan struct{})}
	s.daemon.minders[rec.ExecutionID] = m
	document := answerOf(rec.ExecutionID, true).Encode(false)
	m.answer(document)
	m.finish(decodeResult(rec.ExecutionID, rec.Created, document))
	if m.settle() {
		t.Fatal("it is in the history")
	}
	if have := s.Answer(t.Context(), rec.Owner, rec.ExecutionID); have != nil {
		t.Errorf("still held: %s", have)
	}
	r, err := s.As(rec.Owner).Wait(t.Context(), rec.ExecutionID)
	if err != nil || string(r.Encode(false)) != string(document) {
		t.Errorf("%v, %v", r, err)
	}
}
