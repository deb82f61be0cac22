package cgroup

import (
	"sync"

	"golang.org/x/sys/unix"
)

// kept are open files of a group. The zero value has none, as has nil.
type kept struct {
	mu    sync.Mutex // against Close while a counter is read
	files []keptFile
}

type keptFile struct {
	path string
	fd   int
}

// open opens and keeps a file, if it can be opened.
func (k *kept) open(path string) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files = append(k.files, keptFile{path, fd})
}

// read returns all of a file, from its descriptor where it is kept.
func (k *kept) read(b *buffer, path string) (string, error) {
	if k == nil {
		return b.read(path)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.files {
		if f.path == path {
			return b.readAgain(f.fd)
		}
	}
	return b.read(path)
}

func (k *kept) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.files {
		unix.Close(f.fd)
	}
	k.files = nil
}
