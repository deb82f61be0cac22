package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/spec/fault"
)

// The names of a bundle's parts below its directory.
const (
	// ConfigName is the configuration (OCI runtime-spec, bundle.md).
	ConfigName = "config.json"
	// RootfsName is the directory on which the root of the sandbox is mounted.
	RootfsName = "rootfs"
)

// maxConfigBytes bounds a configuration from outside.
const maxConfigBytes = 16 << 20

// Write puts the configuration into the bundle directory dir, which must
// exist: config.json with mode 0600, whole or not at all, and an empty rootfs
// directory. It does not sync: a bundle means nothing after a crash of the
// host. Errors are E2009 (not expressible in JSON) and E6001.
func Write(dir string, s *specs.Spec) error { return WriteFiltered(dir, s, "") }

// WriteFiltered is Write with the JSON of linux.seccomp in place of the object
// in s. Empty: the object is written. A configuration that Encode does not
// write by hand must hold the object itself.
func WriteFiltered(dir string, s *specs.Spec, filter string) error {
	data, err := encode(s, filter)
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, RootfsName), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fault.Wrap(fault.IO, "write bundle", err)
	}
	name := filepath.Join(dir, ConfigName)
	// A fixed temporary name: the directory belongs to one execution. O_EXCL
	// also refuses a symbolic link.
	temporary := name + ".tmp"
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := os.OpenFile(temporary, flags, 0o600)
	if errors.Is(err, fs.ErrExist) { // of a Write that was killed
		if err = os.Remove(temporary); err == nil {
			f, err = os.OpenFile(temporary, flags, 0o600)
		}
	}
	if err != nil {
		return fault.Wrap(fault.IO, "write bundle", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return fault.Wrap(fault.IO, "write bundle", errors.Join(err, os.Remove(temporary)))
	}
	return nil
}

// Load reads dir/config.json, at most 16 MiB. Unknown, duplicate and misspelt
// keys are E2009 with the dotted path of the key in Field, as is everything
// that is not of the right type. What the values mean is not checked here.
func Load(dir string) (*specs.Spec, error) {
	name := filepath.Join(dir, ConfigName)
	// The directory may be anybody's: opening a FIFO must not block, and
	// reading a device must not begin.
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fault.New(fault.InvalidBundle, "load bundle", "not a regular file").WithPath(name)
	}
	if err == nil && info.Size() > maxConfigBytes {
		return nil, fault.New(fault.InvalidBundle, "load bundle", "larger than 16 MiB").WithPath(name)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		var bare *fs.PathError // its text has the path once more
		if errors.As(err, &bare) {
			err = bare.Err
		}
		return nil, fault.Wrap(fault.InvalidBundle, "load bundle", err).WithPath(name).
			WithHint("A bundle is a directory with a " + ConfigName + "; capsulectl bundle create makes one of a request.")
	}
	s, err := Decode(data)
	if err != nil {
		return nil, fault.From(err, fault.InvalidBundle).WithPath(name)
	}
	return s, nil
}

// Decode is Load for bytes in memory.
func Decode(data []byte) (*specs.Spec, error) { return specjson.ReadStrictly(data) }
