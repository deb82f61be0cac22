//go:build !linux

package main

import (
	"os"
	"runtime"

	"github.com/capsule-run/capsule/spec/fault"
)

func run([]string) error {
	err := fault.New(fault.Unsupported, "", "containers need Linux; this is "+runtime.GOOS+" ("+version+" "+commit+")")
	_, _ = os.Stderr.WriteString("capsule-oci: " + err.Error() + "\n") // nobody else is left to tell
	return err
}
