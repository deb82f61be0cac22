//go:build !linux

package main

import (
	"runtime"

	"github.com/capsule-run/capsule/spec/fault"
)

func run() error {
	return fault.New(fault.Unsupported, "", "sandboxes need Linux; this is "+runtime.GOOS)
}
