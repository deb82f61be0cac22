package history_test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// image is a closed history of n entries, one of them with much output.
func image(t testing.TB, n int) []byte {
	t.Helper()
	path := file(t)
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e := entry(i)
		if i == 3 {
			e.Stdout = bytes.Repeat([]byte("capsule "), 1<<15)
		}
		if err := s.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	// Free pages and remembered ids, too.
	for i := 0; i < n; i += 5 {
		if err := s.Remove(id(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSoundFilesPassTheCheck checks the file after every one of many changes: a
// check that is stricter than bbolt would set aside what is sound.
func TestSoundFilesPassTheCheck(t *testing.T) {
	path := file(t)
	s := open(t, path, history.Options{Limits: history.Limits{Count: 700, OutputBytes: 200_000}})
	history.Remember(s, 500)
	random := rand.New(rand.NewPCG(3, 4))
	next := 0
	for step := range 120 {
		switch random.IntN(4) {
		case 0, 1:
			var entries []history.Entry
			for range 1 + random.IntN(60) {
				e := entry(next)
				e.Stdout = make([]byte, random.IntN(3000))
				if random.IntN(200) == 0 {
					e.Stderr = make([]byte, random.IntN(3<<20))
				}
				next++
				entries = append(entries, e)
			}
			random.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
			if err := s.Put(entries...); err != nil {
				t.Fatal(err)
			}
		case 2:
			for range random.IntN(30) {
				if err := s.Remove(id(random.IntN(next + 1))); err != nil && code(err) != fault.NotFound {
					t.Fatal(err)
				}
			}
		case 3:
			if _, err := s.Retain(epoch); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := history.Check(data); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
	}
}

// survive opens a damaged image, uses all of it and writes to it: whatever is
// returned must be true or a fault.
func survive(t *testing.T, data []byte, n int) (setAside bool, unreadable int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // a damaged one may refuse
	if s.Damaged() != "" {
		kept, err := os.ReadFile(s.Damaged())
		if err != nil || !bytes.Equal(kept, data) || !strings.HasPrefix(s.Damaged(), path+".damaged-") {
			t.Errorf("%q does not have the damaged file: %v", s.Damaged(), err)
		}
		put(t, s, 1)
		same(t, s, entry(1))
		return true, 0
	}
	page, err := s.List(&api.Filter{All: true, PageSize: 1000}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Executions {
		if e.Reason == history.ReasonUnreadable {
			unreadable++
		}
	}
	for i := range n {
		r, err := s.Get(id(i))
		if err != nil {
			if c := code(err); c != fault.StateUnreadable && c != fault.NotFound {
				t.Errorf("entry %d: %v", i, err)
			}
			continue
		}
		want := entry(i)
		if r.Summary.Command[1] != want.Summary.Command[1] || !bytes.Equal(r.Request, want.Request) || !bytes.Equal(r.Response, want.Response) {
			t.Errorf("entry %d was made up: %+v", i, r)
		}
	}
	put(t, s, 1000)
	if _, err := s.Retain(epoch); err != nil && code(err) == "" {
		t.Error(err)
	}
	for _, e := range page.Executions {
		if err := s.Remove(e.ID); err != nil {
			t.Errorf("%s cannot be removed: %v", e.ID, err)
		}
	}
	return false, unreadable
}

func TestDamagedFiles(t *testing.T) {
	sound := image(t, 40)
	garbage := make([]byte, 100_000)
	random := rand.NewChaCha8([32]byte{2})
	_, _ = random.Read(garbage) // it never fails
	half := bytes.Clone(sound)
	clear(half[len(half)/2:])
	cases := map[string][]byte{
		"empty": {}, "one byte": {0}, "garbage": garbage, "text": []byte(strings.Repeat("history\n", 5000)),
		"zeros": make([]byte, 65536), "both meta pages": append(make([]byte, 8192), sound[8192:]...),
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			if setAside, _ := survive(t, data, 40); !setAside {
				t.Error("it was not set aside")
			}
		})
	}
	t.Run("sound", func(t *testing.T) {
		if setAside, unreadable := survive(t, sound, 40); setAside || unreadable != 0 {
			t.Error("a sound file was taken for damaged")
		}
	})
	t.Run("half", func(t *testing.T) { survive(t, half, 40) })
}

func TestTruncatedFiles(t *testing.T) {
	sound := image(t, 40)
	for length := 1; length < len(sound); length += 1 + len(sound)/60 {
		survive(t, sound[:length], 40)
	}
}

// TestCutEnd cuts bytes off the end that the file does not use: it is told, and
// nothing is lost.
func TestCutEnd(t *testing.T) {
	sound := image(t, 40)
	for _, n := range []int{1, 2, 4095} {
		path := filepath.Join(t.TempDir(), "history.db")
		if err := os.WriteFile(path, sound[:len(sound)-n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := history.Open(path, history.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !s.Cut() || s.Damaged() != "" {
			t.Errorf("%d bytes: cut is %v, set aside as %q", n, s.Cut(), s.Damaged())
		}
		same(t, s, entry(1))
		put(t, s, 50)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, path, history.Options{})
		if s.Cut() {
			t.Errorf("%d bytes: it is told again", n)
		}
		same(t, s, entry(1))
		same(t, s, entry(50))
	}
}

// TestDamageAfterClose changes a file that was closed in order, at once and
// without a change of its length: that it was sound then is not believed now.
func TestDamageAfterClose(t *testing.T) {
	path := file(t)
	for range 20 {
		s, err := history.Open(path, history.Options{})
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, 1)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 8192), 0); err != nil { // both meta pages
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = history.Open(path, history.Options{}); err != nil {
			t.Fatal(err)
		}
		if s.Damaged() == "" {
			t.Error("it was not set aside")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlippedBytes changes some bytes anywhere, and one by one those of the first
// pages, which have the structure of everything else.
func TestFlippedBytes(t *testing.T) {
	sound := image(t, 40)
	random := rand.New(rand.NewPCG(1, 2))
	aside, reported, harmless := 0, 0, 0
	for range 100 {
		data := bytes.Clone(sound)
		for range 1 + random.IntN(3) {
			at := random.IntN(len(data))
			// The headers of pages and elements are where it matters.
			if random.IntN(2) == 0 {
				at = at/4096*4096 + random.IntN(128)
			}
			data[at%len(data)] ^= byte(1 + random.IntN(255))
		}
		switch setAside, unreadable := survive(t, data, 40); {
		case setAside:
			aside++
		case unreadable > 0:
			reported++
		default:
			harmless++
		}
	}
	t.Logf("%d set aside, %d with unreadable records, %d in unused bytes or bodies", aside, reported, harmless)
	if aside == 0 || harmless == 0 {
		t.Error("the bytes that were changed say nothing")
	}
}

// change edits a closed history with bbolt itself.
func change(t *testing.T, path string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(f); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// flip damages every value in a bucket whose key satisfies which.
func flip(b *bbolt.Bucket, which func(k []byte) bool) error {
	damaged := map[string][]byte{}
	err := b.ForEach(func(k, v []byte) error {
		if v != nil && which(k) {
			v = bytes.Clone(v)
			v[len(v)-1] ^= 0x10
			damaged[string(k)] = v
		}
		return nil
	})
	for k, v := range damaged {
		if err := b.Put([]byte(k), v); err != nil {
			return err
		}
	}
	return err
}

// TestOneDamagedRecord is listed beside the sound ones and can be removed.
func TestOneDamagedRecord(t *testing.T) {
	path := file(t)
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, 0, 1, 2, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	last := func(n byte) func([]byte) bool { return func(k []byte) bool { return k[len(k)-1] == n } }
	change(t, path, func(tx *bbolt.Tx) error {
		if err := flip(tx.Bucket([]byte("records")), last(1)); err != nil {
			return err
		}
		if err := flip(tx.Bucket([]byte("ids")), last(2)); err != nil {
			return err
		}
		return tx.Bucket([]byte("bodies")).ForEachBucket(func(k []byte) error {
			if k[15] != 3 {
				return nil
			}
			return flip(tx.Bucket([]byte("bodies")).Bucket(k), func(k []byte) bool { return k[0] == 'o' })
		})
	})
	s = open(t, path, history.Options{})
	page, err := s.List(nil, nil)
	if err != nil || len(page.Executions) != 4 {
		t.Fatal(page, err)
	}
	for i, e := range page.Executions {
		if (e.Reason == history.ReasonUnreadable) != (e.ID == id(1)) {
			t.Errorf("%d: %+v", i, e)
		}
	}
	if page, err := s.List(nil, func(u uint32) bool { return u == 1001 }); err != nil || len(page.Executions) != 1 {
		t.Error("others see a record whose owner is not known:", page, err)
	}
	for _, n := range []int{1, 2} {
		if _, err := s.Get(id(n)); code(err) != fault.StateUnreadable {
			t.Errorf("%d: %v", n, err)
		}
	}
	if _, err := s.Get(id(3)); err != nil {
		t.Error(err)
	}
	r, err := s.Output(id(3), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); code(err) != fault.StateUnreadable {
		t.Error("damaged output is read as", err)
	}
	for n := range 4 {
		if err := s.Remove(id(n)); err != nil {
			t.Error(err)
		}
	}
	if count, size := s.Totals(); count != 0 || size != 0 {
		t.Errorf("%d, %d are left", count, size)
	}
}

func TestFormats(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*bbolt.Tx) error
	}{
		{"version", func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte("2")) }},
		{"no bucket", func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("ids")) }},
		{"another program's", func(tx *bbolt.Tx) error {
			for _, b := range []string{"meta", "records", "ids", "bodies", "staging", "removed", "order"} {
				if err := tx.DeleteBucket([]byte(b)); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			if err := os.WriteFile(path, image(t, 3), 0o600); err != nil {
				t.Fatal(err)
			}
			change(t, path, c.edit)
			s := open(t, path, history.Options{})
			if s.Damaged() == "" || s.Has(id(1)) {
				t.Error("it was not set aside")
			}
			put(t, s, 1)
		})
	}
}

// TestDamagedTotals are counted again.
func TestDamagedTotals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	if err := os.WriteFile(path, image(t, 7), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	count, size := s.Totals()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, path, func(tx *bbolt.Tx) error {
		return flip(tx.Bucket([]byte("meta")), func(k []byte) bool { return string(k) == "totals" })
	})
	s = open(t, path, history.Options{})
	if c, b := s.Totals(); c != count || b != size || s.Damaged() != "" {
		t.Errorf("%d, %d became %d, %d", count, size, c, b)
	}
}

// TestHalfStagedOutput: what a crash left of an entry that was not yet stored
// takes no place and does not keep the entry from being stored.
func TestHalfStagedOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	if err := os.WriteFile(path, image(t, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	e := entry(9)
	change(t, path, func(tx *bbolt.Tx) error {
		id := [16]byte{}
		copy(id[:], []byte{9 * 37 % 256, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 9})
		if err := tx.Bucket([]byte("staging")).Put(id[:], nil); err != nil {
			return err
		}
		b, err := tx.Bucket([]byte("bodies")).CreateBucket(id[:])
		if err != nil {
			return err
		}
		return b.Put([]byte("o\x00\x00\x00\x00"), make([]byte, 1<<20))
	})
	s := open(t, path, history.Options{})
	if s.Has(id(9)) || s.Known(id(9)) {
		t.Error("half an entry is there")
	}
	if err := s.Put(e); err != nil {
		t.Fatal(err)
	}
	same(t, s, e)
}

// TestSecondProcess holds the history in a child and opens it here.
func TestSecondProcess(t *testing.T) {
	const variable = "CAPSULE_TEST_HOLD_HISTORY"
	if path := os.Getenv(variable); path != "" {
		s, err := history.Open(path, history.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("open")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // the parent closes it
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	path := file(t)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSecondProcess$")
	child.Env = append(os.Environ(), variable+"="+path)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "open\n" {
		t.Fatal(line, err)
	}
	for _, patience := range []time.Duration{0, 30 * time.Millisecond} {
		_, err = history.Open(path, history.Options{Lock: patience})
		f := fault.From(err, "")
		if f == nil || f.Code != fault.IO || f.Path != path || f.Hint == "" ||
			!strings.Contains(f.Message(), fmt.Sprintf("another supervisor (process %d)", child.Process.Pid)) {
			t.Errorf("%v", err)
		}
	}
	// The child goes while this process waits.
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, history.Options{Lock: time.Minute})
	if s.Damaged() != "" {
		t.Error(s.Damaged())
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	path := filepath.Join(f.TempDir(), "history.db")
	if err := os.WriteFile(path, image(f, 4), 0o600); err != nil {
		f.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		f.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("records")).ForEach(func(k, v []byte) error {
			f.Add(bytes.Clone(k), bytes.Clone(v), true)
			f.Add(bytes.Clone(k), bytes.Clone(v[4:]), false)
			return nil
		})
	})
	if err != nil {
		f.Fatal(err)
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte{}, true)
	f.Fuzz(func(t *testing.T, k, v []byte, sealed bool) {
		if !sealed {
			// A checksum that is right lets the decoder see the rest.
			v = history.Seal(k, v)
		}
		if err := history.DecodeHead(k, v); err != nil && code(err) != fault.StateUnreadable {
			t.Error(err)
		}
	})
}

// FuzzCheck gives the check of pages any bytes: it ends, without a panic.
func FuzzCheck(f *testing.F) {
	sound := image(f, 4)
	f.Add(0, []byte{})
	f.Add(4096*3, []byte{1, 2, 3, 4})
	f.Fuzz(func(_ *testing.T, at int, patch []byte) {
		data := bytes.Clone(sound)
		if at >= 0 && at < len(data) {
			copy(data[at:], patch)
		}
		_ = history.Check(data) // any verdict will do
	})
}
