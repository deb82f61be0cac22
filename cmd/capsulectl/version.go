package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit are set by the linker (-X main.version=...) in releases;
// other builds know themselves from the version control stamp. Nothing writes
// to them at run time.
var version, commit string

// versionInfo is the document of `capsulectl version -o json`.
type versionInfo struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	GoVersion string `json:"go_version"`
	OS        string `json:"os"`
	Arch      string `json:"arch"`
}

func readVersion() versionInfo {
	v := versionInfo{version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	modified := false
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && v.Commit == "":
			v.Commit = s.Value
		case s.Key == "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified && commit == "" && v.Commit != "" {
		v.Commit += "-dirty"
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}

func versionText() string {
	v := readVersion()
	c := v.Commit
	if c == "" {
		c = "unknown"
	}
	return fmt.Sprintf("capsulectl %s\ncommit %s\n%s %s/%s\n", v.Version, c, v.GoVersion, v.OS, v.Arch)
}
