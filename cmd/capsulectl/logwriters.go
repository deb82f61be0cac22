package main

import (
	"bytes"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// takeSince reads an age or a time.
func takeSince(k *call, v string) error {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			k.sinceTime = t
			return nil
		}
	}
	if _, err := strconv.Atoi(v); err == nil {
		return fault.New(fault.InvalidValue, "", v+" has no unit").WithHint("For example 30s, 10m or 2h, or a time such as 2026-01-31T14:00:00Z.")
	}
	ms, err := spec.ParseDuration(v)
	if err != nil {
		return fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is neither an age nor a time").
			WithHint("For example 30s, 10m or 2h, or a time such as 2026-01-31T14:00:00Z.")
	}
	k.sinceTime = time.Now().Add(-time.Duration(min(ms, maxAge)) * time.Millisecond)
	return nil
}

// stamper knows when what is written to it came, and with lines begins each line
// with that.
type stamper struct {
	w     io.Writer
	came  time.Time // zero: not known
	lines bool
	// inside: the last line has not ended.
	inside bool
}

// stampLayout is as long for every time, so that lines stay aligned.
const stampLayout = "2006-01-02T15:04:05.000Z"

// unknownStamp is as long as a time.
const unknownStamp = "-                       "

// Write passes p on.
func (s *stamper) Write(p []byte) (int, error) {
	if !s.lines {
		return s.w.Write(p)
	}
	stamp := unknownStamp
	if !s.came.IsZero() {
		stamp = s.came.UTC().Format(stampLayout)
	}
	var b []byte
	for line := range bytes.Lines(p) {
		if !s.inside {
			b = append(append(b, stamp...), ' ')
		}
		b = append(b, line...)
		s.inside = line[len(line)-1] != '\n'
	}
	if _, err := s.w.Write(b); err != nil {
		return 0, err
	}
	return len(p), nil
}

// tail keeps the last lines of what is written to it; a negative number: all.
type tail struct {
	lines int
	data  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if t.lines == 0 {
		t.data = nil
	}
	if t.lines <= 0 {
		return len(p), nil
	}
	// The last line feed ends the last line; it does not begin another.
	from := max(len(t.data)-1, 0)
	for range t.lines {
		if from = bytes.LastIndexByte(t.data[:from], '\n'); from < 0 {
			return len(p), nil
		}
	}
	t.data = append(t.data[:0], t.data[from+1:]...)
	return len(p), nil
}

// pieces prints output as JSON lines.
type pieces struct {
	s      *session
	mu     *sync.Mutex
	stream string
	clock  *stamper
}

// piece is one of them.
type piece struct {
	Stream string `json:"stream"`
	// Time is when it came; when it was read, if that is not known.
	Time     time.Time `json:"time"`
	Data     any       `json:"data"`
	Encoding string    `json:"encoding,omitempty"`
}

// Write prints one line.
func (p *pieces) Write(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	line := piece{Stream: p.stream, Time: p.clock.came, Data: string(data)}
	if line.Time.IsZero() {
		line.Time = time.Now().UTC()
	}
	if !utf8.Valid(data) {
		line.Data, line.Encoding = data, "base64"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(data), p.s.jsonLine(line)
}
