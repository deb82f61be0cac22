package main

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/capsule-run/capsule/spec/fault"
)

// readBounded reads all of r into memory, at most limit bytes; one more is an
// E1003. The first buffer is large enough that an ordinary request takes two
// read calls, one for the bytes and one for the end.
func readBounded(r io.Reader, limit int) ([]byte, error) {
	buf := make([]byte, 0, 32<<10)
	for {
		n, err := r.Read(buf[len(buf):min(cap(buf), limit+1)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, fault.New(fault.OutOfRange, "", "longer than the limit").
				WithHint("Large inputs belong into a file that the sandbox can read, or behind --stdin.")
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 4*cap(buf)), buf...)
		}
	}
}

// readRequest reads the whole request from stdin.
func readRequest(r io.Reader, limit int) ([]byte, error) {
	data, err := readBounded(r, limit)
	if err == nil {
		return data, nil
	}
	f := *fault.From(err, fault.IO)
	f.Op = "read the request from stdin"
	if f.Code == fault.OutOfRange {
		return nil, fault.List{&f} // a problem of the document, as the decoder tells them
	}
	return nil, &f
}

// bare is the cause of an error of package os, whose text has the path, too.
func bare(err error) error {
	var at *os.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// readFile reads a file that a flag names. `-` is not special: stdin belongs to
// the payload.
func readFile(path string) ([]byte, error) { return readUpTo(path, maxFileBytes) }

// readUpTo is readFile with a bound of its own.
func readUpTo(path string, limit int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidPath, "open", bare(err)).WithPath(path)
	}
	defer file.Close() // opened for reading: nothing can be lost
	data, err := readBounded(file, limit)
	if err != nil {
		return nil, fault.From(bare(err), fault.IO).WithPath(path)
	}
	// A byte order mark is no part of a variable's name or of JSON.
	return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), nil
}
