package main

import "os"

// isTerminal says whether f is a terminal.
func isTerminal(f *os.File) bool {
	_, _, ok := window(f)
	return ok
}
