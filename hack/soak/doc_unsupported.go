//go:build !linux

// Soak runs on Linux only.
package main

func main() { panic("soak runs on Linux only") }
