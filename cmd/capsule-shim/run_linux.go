package main

import (
	"os"

	"github.com/capsule-run/capsule/shim"
	"github.com/capsule-run/capsule/shim/doctor/examine"
	"github.com/capsule-run/capsule/shim/inside"
	"github.com/capsule-run/capsule/shim/layout"
)

func run() error {
	if len(os.Args) > 2 && os.Args[1] == "sweep" {
		return shim.Sweep(layout.State(os.Args[2]), os.Args[3:]...)
	}
	if len(os.Args) > 2 && os.Args[1] == "doctor" {
		return examine.Main(os.Args[2], os.Args[3:])
	}
	if len(os.Args) > 1 && os.Args[1] == inside.Argument {
		return inside.Main(os.Stdout)
	}
	return shim.Main()
}
