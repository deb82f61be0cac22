package task

import (
	"os"
	"strings"
	"testing"
)

func TestCapture(t *testing.T) {
	for _, c := range []struct {
		limit   int
		tail    bool
		written []string
		kept    string
		over    int
	}{
		{5, false, []string{"ab", "c"}, "abc", 0},
		{3, false, []string{"ab", "c"}, "abc", 0},
		{3, false, []string{"ab", "cd", "ef"}, "abc", 1},
		{0, false, []string{"ab"}, "", 1},
		{3, true, []string{"ab", "cd", "ef"}, "def", 1},
		{3, true, []string{"abcdefgh"}, "fgh", 1},
		{0, true, []string{"ab"}, "", 1},
	} {
		over := 0
		k := &capture{limit: c.limit, tail: c.tail, over: func() { over++ }}
		for _, s := range c.written {
			if n, err := k.Write([]byte(s)); n != len(s) || err != nil {
				t.Fatal(n, err)
			}
		}
		got, all := k.result(), strings.Join(c.written, "")
		if string(got.Kept) != c.kept || got.Total != int64(len(all)) || over != c.over {
			t.Errorf("%d, tail %v, %q: kept %q of %d, %d times too much", c.limit, c.tail, c.written, got.Kept, got.Total, over)
		}
	}
}

// TestCaptureIsBounded writes much into a small tail.
func TestCaptureIsBounded(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	k := &capture{limit: 1000, tail: true}
	done := make(chan struct{})
	go func() {
		k.read(r)
		close(done)
	}()
	const pieces = 4096
	for range pieces {
		if _, err := w.WriteString(strings.Repeat("x", 1023) + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	<-done
	if got := k.result(); len(got.Kept) != 1000 || got.Total != pieces*1024 || cap(k.kept) > 128<<10 {
		t.Errorf("kept %d of %d in %d", len(got.Kept), got.Total, cap(k.kept))
	}
}
