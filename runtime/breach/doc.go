// Package breach takes one wall out of a build, by which hack/escape shows for
// each wall that a test misses it. In ordinary builds Of is false for every
// name and known to be so when compiling: neither a name nor what it would do
// is in the program. With the build tag breach the linker says which wall is
// out; no environment and no request can.
package breach
