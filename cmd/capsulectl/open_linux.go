package main

import (
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// openEmbedded gives the supervisor in this process for the run verb.
func openEmbedded(rules *policy.Policy) (engine, error) {
	s, err := supervisor.New(supervisor.Options{Policy: rules})
	if err != nil {
		return nil, err
	}
	return embedded{s}, nil
}

// launcher is for systems on which capsulectl starts commands itself.
func launcher([]string) bool { return false }
