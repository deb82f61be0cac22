package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// directory makes an empty directory that a sandbox may be given.
func (c *capsule) directory() string {
	c.Helper()
	dir, err := os.MkdirTemp(scratch(), "bind-")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			c.Error(err)
		}
	})
	return dir
}

// write makes a file and gives its path.
func (c *capsule) write(dir, name, text string) string {
	c.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.Fatal(err)
	}
	return path
}

// unixEpoch is a deadline that is over.
var unixEpoch = time.Unix(0, 1)

func decimal(n int) string { return strconv.Itoa(n) }

// eventually waits until a condition holds that sends no event.
func (c *capsule) eventually(what string, holds func() bool) {
	c.Helper()
	for deadline := time.Now().Add(patient(10 * time.Second)); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatal("never: " + what)
		}
	}
}
