package examine

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/capsule-run/capsule/spec/fault"
)

// Main examines the host and writes the examination, as JSON, to descriptor 1.
// user names the user of this process; paths are tried as writable ones.
// Descriptors 3 and 4 must be open and may be replaced: a shim's are there.
func Main(user string, paths []string) error {
	self, err := os.Executable()
	if err != nil {
		return fault.Wrap(fault.IO, "find capsule-shim", err)
	}
	x, err := Run(Options{User: user, Shim: self, SeccompHelper: filepath.Join(filepath.Dir(self), "capsule-seccomp"), Paths: paths})
	if err != nil {
		return err
	}
	data, err := json.Marshal(x)
	if err == nil {
		_, err = os.Stdout.Write(data)
	}
	if err != nil {
		return fault.Wrap(fault.IO, "write the examination", err)
	}
	return nil
}
