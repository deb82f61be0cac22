// Package host gathers what shim/bundle and runtime/plan must know of the
// machine: which system directories it has, what the paths of a request really
// are and whether policy lets a sandbox see them, whether their file systems
// can be idmapped, and which range of host ids an execution may own.
//
// It decides nothing about the sandbox and changes nothing on the host, but for
// the file of locks behind AllocateSlot. Paths of a request are resolved by
// descriptor and handed on in their canonical form, without symbolic links, so
// that whoever opens them later can refuse to follow any.
package host
