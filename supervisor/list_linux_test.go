package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
)

// testQueue is a daemon in which whatever is started waits.
func testQueue(t *testing.T) *Supervisor {
	t.Helper()
	testState(t)
	s := testDaemon(t, admission.Limits{MaxConcurrent: 1, MaxQueued: 1000})
	s.daemon.queue.Adopt(0, 0)
	return s
}

// begin starts an execution and returns its id.
func begin(t *testing.T, s *Supervisor, owner uint32, request string) string {
	t.Helper()
	e, err := s.As(owner).Start(t.Context(), &api.StartRequest{Request: []byte(request)})
	if err != nil {
		t.Fatal(err)
	}
	return e.ID
}

const doNothing = `{"command":["/bin/true"],"labels":{"a":"b"}}`

// longRequest is one that a daemon does not remember.
var longRequest = `{"command":["/bin/true","` + strings.Repeat("x", shortRequest) + `"]}`

// listed are all executions of a list, page by page; between is called after each.
func listed(t *testing.T, s *Supervisor, owner uint32, f api.Filter, between func()) (all []api.Summary) {
	t.Helper()
	for {
		page, err := s.As(owner).List(t.Context(), &f)
		if err != nil {
			t.Fatalf("page %q: %v", f.Page, err)
		}
		if f.PageSize > 0 && len(page.Executions) > f.PageSize {
			t.Fatalf("%d on a page of %d", len(page.Executions), f.PageSize)
		}
		all = append(all, page.Executions...)
		if f.Page = page.Next; f.Page == "" {
			return all
		}
		if between != nil {
			between()
		}
	}
}

func idsOf(all []api.Summary) (ids []string) {
	for i := range all {
		ids = append(ids, all[i].ID)
	}
	return ids
}

// TestPagesWhileExecutionsComeAndGo: the pages of a list together have all that live
// throughout, each once, whatever begins and ends between them: the last one of a page,
// one that is to come, one that would have been the first.
func TestPagesWhileExecutionsComeAndGo(t *testing.T) {
	s := testQueue(t)
	own := uint32(os.Geteuid())
	var want []string
	for range 30 {
		want = append(want, begin(t, s, own, doNothing))
	}
	slices.Reverse(want)
	ends := func(id string) {
		m := s.minder(id)
		if ended, err := s.As(own).Kill(t.Context(), id, 0, true); err != nil || !ended {
			t.Fatal(ended, err)
		}
		<-m.gone
	}
	at := 0
	got := idsOf(listed(t, s, own, api.Filter{PageSize: 7}, func() {
		at += 7
		ends(want[at-1])
		begin(t, s, own, doNothing)
		if at == 14 {
			ends(want[20])
			want = slices.Delete(want, 20, 21)
		}
	}))
	if !slices.Equal(got, want) {
		t.Errorf("listed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestPageTokens: what no list has given is refused, also what one of an older version
// has; the place of one that is long gone is a place all the same.
func TestPageTokens(t *testing.T) {
	s := testQueue(t)
	own := uint32(os.Geteuid())
	id := begin(t, s, own, doNothing)
	for _, token := range []string{"s:100", "s:0", "s:1.2", "s:1.2.", "s:1.2.x", "s:1.-2." + id, "s:1.1000000000." + id, "s:x.2." + id, "s:1.2." + strings.ToUpper(id),
		"s:1.2." + id + ".3", "s:99999999999999999999.2." + id, "s: ", "x:", "z", "h:x", "100"} {
		if _, err := s.As(own).List(t.Context(), &api.Filter{Page: token, All: true}); codeOf(err) != fault.InvalidValue || fault.From(err, "").Field != "/page" {
			t.Errorf("%q: %v", token, err)
		}
	}
	for token, want := range map[string]int{"": 1, "s": 1, "s:": 1, "h:": 0,
		place{time.Now().Add(time.Hour), testID(1)}.token():  1,
		place{time.Now().Add(-time.Hour), testID(1)}.token(): 0,
		place{time.Time{}, testID(1)}.token():                0,
	} {
		page, err := s.As(own).List(t.Context(), &api.Filter{Page: token})
		if err != nil || len(page.Executions) != want {
			t.Errorf("%q: %+v, %v", token, page, err)
		}
	}
}

// TestListIsWhatTheDiskTells: a daemon shows what it minds, what it does not and what is
// damaged as a supervisor that has no memory reads it from the directory, in the same
// order, however long the pages are, and to each caller his own.
func TestListIsWhatTheDiskTells(t *testing.T) {
	s := testQueue(t)
	own := uint32(os.Geteuid())
	const other = 4242
	at := time.Now().Add(-time.Minute)
	for n := range 6 { // nobody minds them, until a daemon looks for such
		_, lock, _ := waits(t, s, n, at.Add(time.Duration(n%4)*time.Second))
		defer lock.Close()
	}
	dir, lock, _ := waits(t, s, 6, at)
	defer lock.Close()
	if err := os.WriteFile(dir.Record(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := runs(t, s, 7, at.Add(2*time.Second))
	runs(t, s, 8, at.Add(30*time.Second))
	if r, err := s.Recover(t.Context()); err != nil || r.Live != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	for range 3 {
		begin(t, s, own, doNothing)
		begin(t, s, other, doNothing)
		begin(t, s, own, longRequest)
	}
	alone, err := New(Options{ShimPath: "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string, f api.Filter, owner uint32, want int) {
		t.Helper()
		disk := listed(t, alone, owner, f, nil)
		if len(disk) != want {
			t.Errorf("%s: the disk has %d, want %d", what, len(disk), want)
		}
		for _, size := range []int{0, 1, 2, 5, len(disk) + 1} {
			f.PageSize = size
			if have := listed(t, s, owner, f, nil); !reflect.DeepEqual(have, disk) {
				t.Errorf("%s, pages of %d: listed\n%+v\nthe disk has\n%+v", what, size, have, disk)
			}
		}
	}
	since := at.Add(20 * time.Second)
	same("all", api.Filter{}, own, 18)
	same("since", api.Filter{Since: since}, own, 10)
	same("those that run", api.Filter{Statuses: []string{api.StatusRunning}}, own, 2)
	same("those that wait", api.Filter{Statuses: []string{api.StatusQueued}}, own, 16)
	same("label", api.Filter{Labels: map[string]string{"a": ""}}, own, 6)
	same("prefix", api.Filter{IDPrefix: testID(0)[:20]}, own, 9)
	for _, n := range []int{3, 6, 7} { // nobody's, a damaged one, one that is minded
		same("a whole id", api.Filter{IDPrefix: testID(n)}, own, 1)
		same("a whole id", api.Filter{IDPrefix: testID(n)}, other, 0)
	}
	same("an id that is not there", api.Filter{IDPrefix: testID(99)}, own, 0)
	same("another's", api.Filter{}, other, 3)
	same("nobody's", api.Filter{}, other+1, 0)
	info, err := s.As(own).Info(t.Context())
	if err != nil || info.Running != 2 || info.Queued != 16 {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err = s.As(other).Info(t.Context()); err != nil || info.Running != 0 || info.Queued != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	// A record that is damaged while the execution lives costs what it alone tells.
	if err := os.WriteFile(running.Record(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := listed(t, s, own, api.Filter{}, nil)
	i := slices.Index(idsOf(all), testID(7))
	if len(all) != 18 || i < 0 || all[i].Owner != own || !all[i].Created.Equal(at.Add(2*time.Second)) || all[i].Status != api.StatusRunning {
		t.Errorf("with a damaged record: %+v", all)
	}
}

// runs makes an execution whose shim seems to live: the test has its lock.
func runs(t *testing.T, s *Supervisor, n int, created time.Time) layout.Dir {
	t.Helper()
	dir, lock, _ := waits(t, s, n, created)
	t.Cleanup(func() { lock.Close() })
	for _, file := range []string{dir.Log(), dir.Shim()} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestListOfOneThatHasEnded: a result that its shim has recorded counts, also while the
// daemon has not heard of it, and what has left for the history is not shown as living.
func TestListOfOneThatHasEnded(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{})
	own := uint32(os.Geteuid())
	dir := runs(t, s, 1, time.Now().Add(-time.Minute))
	if r, err := s.Recover(t.Context()); err != nil || r.Live != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	zero := 0
	good := &spec.Response{ExecutionID: testID(1), Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}, ExitCode: &zero}
	if err := layout.WriteFile(dir.Result(), good.Encode(false)); err != nil {
		t.Fatal(err)
	}
	if live := listed(t, s, own, api.Filter{}, nil); len(live) != 0 {
		t.Errorf("living: %+v", live)
	}
	ended := listed(t, s, own, api.Filter{Statuses: []string{string(spec.StatusSuccess)}}, nil)
	if len(ended) != 1 || ended[0].ExitCode == nil || ended[0].Reason != string(spec.ReasonExited) {
		t.Errorf("ended: %+v", ended)
	}
	if err := os.Rename(string(dir), filepath.Join(t.TempDir(), "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if left := listed(t, s, own, api.Filter{All: true, Statuses: []string{api.StatusRunning}}, nil); len(left) != 0 {
		t.Errorf("without its directory: %+v", left)
	}
	// One whose record is still in memory.
	m := s.minder(testID(1))
	remembers := &minder{s: s, dir: m.dir, rec: m.rec, recorded: m.rec, done: make(chan struct{}), answered: make(chan struct{})}
	if e, err := remembers.entry(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%+v, %v", e, err)
	}
}
