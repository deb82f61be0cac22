package shim

import (
	"bytes"
	"os"
	"testing"

	"github.com/capsule-run/capsule/shim/layout"
)

// TestKeepRecording: a result that was told is written as soon as it can be.
func TestKeepRecording(t *testing.T) {
	dir := layout.Dir(t.TempDir())
	told := []byte(`{"status":"success"}` + "\n")
	e := &execution{dir: dir, response: told, unwritten: true}
	obstacle := dir.Result() + ".new" // stands for a file system without space
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		e.keepRecording()
		close(done)
	}()
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	<-done
	if got, err := os.ReadFile(dir.Result()); err != nil || !bytes.Equal(got, told) {
		t.Errorf("recorded %q, %v", got, err)
	}
	gone := &execution{dir: dir + "/gone", unwritten: true}
	gone.keepRecording() // returns: nobody asks for it
}
