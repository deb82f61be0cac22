//go:build unix

package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// TestDescriptorWritesAll writes more than a pipe holds, to a blocking and to a
// non-blocking one.
func TestDescriptorWritesAll(t *testing.T) {
	data := make([]byte, 1<<20)
	rand.Read(data)
	for _, nonblocking := range []bool{false, true} {
		r, w := pipe(t)
		if err := syscall.SetNonblock(int(w.Fd()), nonblocking); err != nil {
			t.Fatal(err)
		}
		read := make(chan []byte)
		go func() {
			got, _ := io.ReadAll(r)
			read <- got
		}()
		n, err := descriptor(w.Fd()).Write(data)
		if n != len(data) || err != nil {
			t.Errorf("non-blocking %v: %d, %v", nonblocking, n, err)
		}
		w.Close()
		if !bytes.Equal(<-read, data) {
			t.Errorf("non-blocking %v: what arrives is not what was written", nonblocking)
		}
	}
}

func TestDescriptorWithoutReader(t *testing.T) {
	r, w := pipe(t)
	r.Close()
	if _, err := descriptor(w.Fd()).Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%v, want EPIPE", err)
	}
	if n, err := descriptor(w.Fd()).Write(nil); n != 0 || err != nil && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%d, %v", n, err)
	}
}
