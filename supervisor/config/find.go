package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/capsule-run/capsule/spec/fault"
)

// Variables that choose a configuration.
const (
	VariableFile    = "CAPSULE_CONFIG"
	VariableProfile = "CAPSULE_PROFILE"
)

// system is where the host's configuration lies.
const system = "/etc/capsule"

// Find gives the files to read, none when there are none: the given one, else
// $CAPSULE_CONFIG, else $XDG_CONFIG_HOME/capsule/config.toml (~/.config without
// that variable), else /etc/capsule/config.toml and what lies in
// /etc/capsule/conf.d, in the order of the names. The current directory is never
// looked at. A file that nobody named must belong to root or to this user and
// be writable by its owner alone (E1007): others would choose the policy.
func Find(given string, lookupEnv func(string) (string, bool)) ([]string, error) {
	env := func(name string) string {
		if v, ok := lookupEnv(name); ok {
			return v
		}
		return ""
	}
	if given == "" {
		given = env(VariableFile)
	}
	if given != "" {
		path, err := filepath.Abs(given)
		if err != nil {
			return nil, fault.Wrap(fault.ConfigFile, "find configuration", err).WithPath(given)
		}
		return []string{path}, nil
	}
	home := env("XDG_CONFIG_HOME")
	if !filepath.IsAbs(home) {
		if home = env("HOME"); filepath.IsAbs(home) {
			home += "/.config"
		}
	}
	if filepath.IsAbs(home) {
		path := home + "/capsule/config.toml"
		if found, err := usable(path); found || err != nil {
			return []string{path}, err
		}
	}
	return host(system)
}

// host lists the files of the host's configuration.
func host(dir string) ([]string, error) {
	if found, err := exists(dir); !found || err != nil {
		return nil, err
	}
	var files []string
	add := func(path string) error {
		found, err := usable(path)
		if found {
			files = append(files, path)
		}
		return err
	}
	if err := add(dir + "/config.toml"); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir + "/conf.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.ConfigFile, "find configuration", err).WithPath(dir + "/conf.d")
	}
	for _, e := range entries { // sorted by name
		if ext := filepath.Ext(e.Name()); strings.HasPrefix(e.Name(), ".") || !slices.Contains([]string{".toml", ".json"}, ext) {
			continue
		}
		if err := add(dir + "/conf.d/" + e.Name()); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// exists is false without an error only where there is nothing.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	}
	return false, fault.Wrap(fault.ConfigFile, "find configuration", err).WithPath(path)
}

// usable tells whether there is a file, and refuses one that others can change.
func usable(path string) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case err != nil:
		return false, fault.Wrap(fault.ConfigFile, "find configuration", err).WithPath(path).
			WithHint("Make it readable, or name another file with --config or CAPSULE_CONFIG.")
	}
	if !ours(info) || info.Mode().Perm()&0o022 != 0 {
		return false, fault.New(fault.ConfigFile, "find configuration", "others than root and this user can change it").WithPath(path).
			WithHint("chown it to root or to this user and chmod go-w, or name it with --config if you mean it.")
	}
	return true, nil
}
