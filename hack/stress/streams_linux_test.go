package stress

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// longPause is longer than a second, after which ttrpc gives up on a receiver.
const longPause = 1500 * time.Millisecond

// slowReader counts what is written to it and rests once, at the first write.
type slowReader struct {
	total  int
	rested bool
}

func (s *slowReader) Write(p []byte) (int, error) {
	if !s.rested {
		s.rested = true
		time.Sleep(longPause)
	}
	s.total += len(p)
	return len(p), nil
}

func TestSlowReaderGetsEverything(t *testing.T) {
	const size = 8_000_000
	cmd := command(t, "--", "head", "-c", "8000000", "/dev/zero")
	var out slowReader
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil || out.total != size || strings.Contains(stderr.String(), "ttrpc") {
		t.Errorf("%d of %d bytes, %v, stderr %s", out.total, size, err, stderr.String())
	}
	nothingLeft(t)
}

func TestSlowPayloadGetsAllOfItsInput(t *testing.T) {
	cmd := command(t, "--stdin", "--", "sh", "-c", "sleep 1.5; wc -c")
	cmd.Stdin = io.LimitReader(zeros{}, 8_000_000)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || string(bytes.TrimSpace(out)) != "8000000" || strings.Contains(stderr.String(), "ttrpc") {
		t.Errorf("%s, %v, stderr %s", out, err, stderr.String())
	}
	nothingLeft(t)
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A payload that never reads holds up neither its end, its timeout nor the
// notice that its caller is gone.
func TestInputThatNobodyReads(t *testing.T) {
	start := func(args ...string) (wait func() error, kill func() error) {
		cmd := command(t, append([]string{"--stdin"}, args...)...)
		pipe, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go io.Copy(pipe, zeros{}) // ends with EPIPE when capsulectl does
		return cmd.Wait, cmd.Process.Kill
	}
	if wait, _ := start("--", "true"); wait() != nil {
		t.Error("true failed")
	}
	if wait, _ := start("--timeout", "300", "--", "sleep", "1000"); wait() == nil {
		t.Error("no timeout")
	}
	wait, kill := start("--timeout", "1h", "--", "sleep", "1000")
	time.Sleep(longPause) // the input has come to a halt
	if err := kill(); err != nil {
		t.Error(err)
	}
	_ = wait() // killed
	nothingLeft(t)
}
