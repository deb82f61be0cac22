package seccomp

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// maxFiles bounds the cache: callers may send any number of custom objects.
	maxFiles = 256
	// staleAfter is the age at which a temporary file has lost its writer.
	staleAfter = time.Minute
)

// store writes a file by rename. Its errors are dropped on purpose: see Get.
func (c *Cache) store(key string, content []byte) {
	// The directory may exist, made by us or by another process just now.
	if err := os.Mkdir(c.Dir, 0o700); err != nil && !os.IsExist(err) {
		return
	}
	c.sweep(time.Now())
	file, err := os.CreateTemp(c.Dir, key+".*.tmp") // 0600, O_EXCL
	if err != nil {
		return
	}
	_, err = file.Write(content)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	// There is no fsync: a file torn by a crash fails its checksum.
	if err == nil {
		err = os.Rename(file.Name(), c.path(key))
	}
	if err != nil {
		_ = os.Remove(file.Name()) // The next sweep finds what remains.
	}
}

// sweep removes temporary files whose writer died and the oldest programs
// beyond maxFiles. It runs only before a file is added, never on a hit.
func (c *Cache) sweep(now time.Time) {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return
	}
	type aged struct {
		name string
		at   time.Time
	}
	var programs []aged
	for _, e := range entries {
		info, err := e.Info()
		if err != nil { // Another process removed it.
			continue
		}
		switch {
		case strings.HasSuffix(e.Name(), ".bpf"):
			programs = append(programs, aged{e.Name(), info.ModTime()})
		case strings.HasSuffix(e.Name(), ".tmp") && now.Sub(info.ModTime()) > staleAfter:
			_ = os.Remove(c.Dir + "/" + e.Name()) // Gone already, or swept next time.
		}
	}
	if len(programs) < maxFiles {
		return
	}
	slices.SortFunc(programs, func(a, b aged) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	for _, p := range programs[:len(programs)-maxFiles+1] {
		_ = os.Remove(c.Dir + "/" + p.name) // Gone already: another process sweeps too.
	}
}
