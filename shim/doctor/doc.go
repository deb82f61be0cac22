// Package doctor holds what is known about hosts that cannot do all that
// capsule wants: a table of causes with what recognises and what mends each,
// and the report in which they are told. It is plain data; the examination
// itself is in package examine and runs in capsule-shim, whose code makes every
// other sandbox.
package doctor
