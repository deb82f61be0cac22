package output

import (
	"io"
	"os"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

const benchBytes = 1 << 28

// fill writes benchBytes in pieces of 64 KiB.
func fill(w *os.File) {
	block := make([]byte, 64<<10)
	for range benchBytes / len(block) {
		if _, err := w.Write(block); err != nil {
			panic(err)
		}
	}
	w.Close() // A pipe.
}

// BenchmarkThroughput compares the capture with a plain loop of reads.
func BenchmarkThroughput(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		b.SetBytes(benchBytes)
		buf := make([]byte, fullRead)
		for b.Loop() {
			r, w, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			go fill(w)
			for {
				if n, _ := r.Read(buf); n == 0 {
					break
				}
			}
			r.Close() // A pipe.
		}
	})
	for _, c := range []struct {
		name   string
		limit  int64
		policy spec.OutputPolicy
		live   bool
	}{
		{"count", 1 << 20, spec.OutputTruncate, false},
		{"keep", MaxLimit, spec.OutputTruncate, false},
		{"tail", 1 << 20, spec.OutputTail, false},
		{"live", 1 << 20, spec.OutputTruncate, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(benchBytes)
			dir := b.TempDir()
			for b.Loop() {
				s := startIn(b, dir, c.limit, c.policy, nil)
				if c.live {
					go func() {
						sub := s.Subscribe(0)
						defer sub.Close()
						for {
							if _, err := sub.Next(); err != nil {
								return
							}
						}
					}()
				}
				go fill(s.w)
				for !s.Drain(DefaultMax, DefaultMax) {
				}
				s.Finish()
				if s.Close() != nil {
					b.Fatal("close")
				}
				os.Remove(dir + "/stdout") // Absent where all was counted.
			}
		})
	}
}

// BenchmarkSmall is the whole life of a stream that carries one line, beside
// the plainest code that does as much.
func BenchmarkSmall(b *testing.B) {
	dir, err := os.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	line := []byte("42\n")
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, w, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			done := make(chan []byte)
			go func() { kept, _ := io.ReadAll(r); done <- kept }()
			w.Write(line) // Checked by its reader.
			w.Close()     // A pipe.
			if len(<-done) != len(line) {
				b.Fatal("lost")
			}
			r.Close() // Read only.
		}
	})
	for _, silent := range []bool{false, true} {
		name := "line"
		if silent {
			name = "silent"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, w, err := Pipe()
				if err != nil {
					b.Fatal(err)
				}
				s, err := New(r, Config{Name: "stdout", Dir: int(dir.Fd()), Limit: 1 << 20, Policy: spec.OutputTruncate})
				if err != nil {
					b.Fatal(err)
				}
				payload := os.NewFile(uintptr(w), "payload")
				if !silent {
					payload.Write(line) // Counted below.
				}
				payload.Close() // A pipe.
				s.Drain(DefaultQuiet, DefaultMax)
				s.Finish()
				if kept, err := s.Bytes(); err != nil || len(kept) != len(line) && !silent {
					b.Fatal(err)
				}
				s.Close() // Nothing to lose.
			}
		})
	}
}
