// Package launch executes launch plans. The parent half (encode, sources,
// start) prepares everything; the child half (child_linux.go) runs between
// clone and execve and only walks the encoded plan with raw system calls: no
// allocation, no lock, no stack growth, no decision.
package launch
