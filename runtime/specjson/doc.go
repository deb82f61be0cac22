// Package specjson reads and writes the documents of the OCI runtime specification without
// reflection: what encoding/json learns of a type costs a process that lives milliseconds one
// of them, and one that lives with its container a quarter of its memory, for good.
package specjson

//go:generate go run ../../hack/specjson -o generated.go
