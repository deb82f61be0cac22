package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container/resources"
	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/spec/fault"
)

// Record is all that is known of a container: in ROOT/ID/record.json, and Config, which does
// not change, in ROOT/ID/config.json.
type Record struct {
	ID      string     `json:"id"`
	Bundle  string     `json:"bundle"`
	Created time.Time  `json:"created"`
	Config  specs.Spec `json:"-"`
	// Process is the first one of the container. Nil: it is not built yet, or never was.
	Process *Process         `json:"process,omitempty"`
	Group   *resources.Group `json:"group,omitempty"`
	// Gate is the inode of the socket that the process holds until it is started, and
	// the number of its descriptor.
	Gate   uint64 `json:"gate,omitempty"`
	GateFD int    `json:"gate_fd,omitempty"`
	// Steps name those of the plan that come after the gate.
	Steps []Step `json:"steps,omitempty"`
	// NoProcess: the configuration has none, so the container cannot be started.
	NoProcess bool `json:"no_process,omitempty"`
}

// Step is a step of a plan as far as a fault tells of it.
type Step struct {
	Call, Path, Field string
}

// Process is one that can be told from others that had its number.
type Process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: proc_pid_stat(5)
	Boot  string `json:"boot"`
}

// Store is the state directory.
type Store struct {
	// Root is the directory; it is made with mode 0700 when it is needed.
	Root string
}

// Container is one of a store, which nobody else changes while it is open.
type Container struct {
	Record
	store *Store
	dir   string
	lock  *os.File
}

func validID(id string) error {
	ok := id != "" && len(id) <= 255 && id[0] != '.'
	for _, c := range []byte(id) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		ok = ok && (letter || c >= '0' && c <= '9' || strings.IndexByte("_+-.", c) >= 0)
	}
	if !ok {
		return fault.New(fault.InvalidValue, "container id", "is not 1 to 255 of [A-Za-z0-9_+.-], the first no dot").WithField("id")
	}
	return nil
}

// make makes the directory of a new container and locks it.
func (s *Store) make(id string) (*Container, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Root, 0o700); err != nil {
		return nil, fault.Wrap(fault.IO, "make state directory", err).WithPath(s.Root)
	}
	c := &Container{store: s, dir: filepath.Join(s.Root, id)}
	c.ID = id
	if err := os.Mkdir(c.dir, 0o700); errors.Is(err, os.ErrExist) {
		return nil, fault.New(fault.InvalidValue, "create container", "a container with this id exists").WithField("id").WithPath(c.dir)
	} else if err != nil {
		return nil, fault.Wrap(fault.IO, "create container", err).WithPath(c.dir)
	}
	return c, c.take()
}

// take locks the directory of the container: its descriptor, so that no file is
// needed, and the lock goes with the process.
func (c *Container) take() error {
	f, err := os.Open(c.dir)
	if errors.Is(err, os.ErrNotExist) {
		return missing(c.ID)
	}
	if err != nil {
		return fault.Wrap(fault.IO, "open container", err).WithPath(c.dir)
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	var held, now unix.Stat_t
	if err == nil {
		err = errors.Join(unix.Fstat(int(f.Fd()), &held), unix.Stat(c.dir, &now))
	}
	if errors.Is(err, unix.ENOENT) || err == nil && held.Ino != now.Ino {
		f.Close()
		return missing(c.ID) // it was deleted while we waited
	}
	if err != nil {
		f.Close()
		return fault.Wrap(fault.IO, "lock container", err).WithPath(c.dir)
	}
	c.lock = f
	return nil
}

func missing(id string) error {
	return fault.New(fault.NotFound, "open container", "container "+id+" does not exist").WithField("id")
}

// Open locks a container and reads its record. The caller closes it.
func (s *Store) Open(id string) (*Container, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	c := &Container{store: s, dir: filepath.Join(s.Root, id)}
	c.ID = id
	if err := c.take(); err != nil {
		return nil, err
	}
	if err := c.read(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Peek reads a record without the lock, for a look at the state alone.
func (s *Store) Peek(id string) (*Container, error) {
	c, err := s.look(id)
	if err != nil {
		return nil, err
	}
	return c, c.read()
}

// Glance is Peek without the configuration, which is the longest part.
func (s *Store) Glance(id string) (*Container, error) {
	c, err := s.look(id)
	if err != nil {
		return nil, err
	}
	_, err = c.readRecord()
	return c, err
}

// look finds a container of which nothing is read yet.
func (s *Store) look(id string) (*Container, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	c := &Container{store: s, dir: filepath.Join(s.Root, id)}
	c.ID = id
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		return nil, missing(id)
	}
	return c, nil
}

// read fills the record. A container whose creation died before there was one has none.
func (c *Container) read() error {
	if there, err := c.readRecord(); !there {
		return err
	}
	text, err := os.ReadFile(filepath.Join(c.dir, "config.json"))
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Lstat(filepath.Join(c.dir, "record.json")); errors.Is(gone, os.ErrNotExist) {
			return missing(c.ID) // it is being deleted
		}
	}
	if err != nil {
		return c.unreadable("read configuration", err)
	}
	config, err := specjson.Read(text)
	if err != nil {
		return c.unreadable("read configuration", err)
	}
	c.Config = *config
	return nil
}

// readRecord fills the record but for the configuration. False: there is none, or an error.
func (c *Container) readRecord() (there bool, err error) {
	text, err := os.ReadFile(filepath.Join(c.dir, "record.json"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c.Record)
	}
	if err != nil {
		return false, c.unreadable("read record", err)
	}
	if c.Group != nil {
		c.Group.Disown()
	}
	return true, nil
}

func (c *Container) unreadable(op string, err error) error {
	return fault.Wrap(fault.StateUnreadable, op, err).WithPath(c.dir).WithHint("Remove the container with delete --force.")
}

// begin writes the configuration, and then the first record: where there is a record the
// configuration is whole.
func (c *Container) begin() error {
	text, err := specjson.NewWriter(16<<10, false).Spec(&c.Config).Bytes()
	if err != nil {
		return err
	}
	name := filepath.Join(c.dir, "config.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return fault.Wrap(fault.IO, "write configuration", err).WithPath(name)
	}
	return c.write()
}

// write replaces the record.
func (c *Container) write() error {
	text, err := json.Marshal(&c.Record)
	if err != nil {
		return fault.Wrap(fault.IO, "encode record", err)
	}
	temporary := filepath.Join(c.dir, "record.new")
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return fault.Wrap(fault.IO, "write record", err).WithPath(temporary)
	}
	if err := os.Rename(temporary, filepath.Join(c.dir, "record.json")); err != nil {
		return fault.Wrap(fault.IO, "write record", err).WithPath(temporary)
	}
	return nil
}

// erase removes the directory, of which the record goes first: it says that all else is there.
func (c *Container) erase() error {
	err := os.Remove(filepath.Join(c.dir, "record.json"))
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.RemoveAll(c.dir)
	}
	if err != nil {
		return fault.Wrap(fault.IO, "delete container", err).WithPath(c.dir)
	}
	return nil
}

// Close gives the lock back.
func (c *Container) Close() {
	if c.lock != nil {
		c.lock.Close()
		c.lock = nil
	}
}

// IDs lists the containers.
func (s *Store) IDs() ([]string, error) {
	entries, err := os.ReadDir(s.Root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.IO, "list containers", err).WithPath(s.Root)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	sort.Strings(ids)
	return ids, nil
}
