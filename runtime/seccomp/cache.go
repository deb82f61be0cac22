package seccomp

import (
	"encoding/binary"
	"errors"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/spec/fault"
)

// Cache keeps compiled programs in a directory, one file for each key.
//
// A file holds the instructions and a trailer of 16 bytes: a magic number and
// a checksum over the key, the helper's identity and the instructions. A file
// that is torn, renamed, foreign or older than the helper is compiled anew. Any
// number of processes may use one directory at once: files appear by rename
// and are never changed.
type Cache struct {
	// Dir is the directory. It is made with mode 0700 when a first program is
	// stored; its parent must exist.
	Dir string
	// Helper is the path of the program capsule-seccomp. It must exist even
	// when the program is cached, since its identity is part of the checksum.
	Helper string
}

// ErrNoLibrary is within the fault for a program that is not in the cache where
// the helper is built without libseccomp.
var ErrNoLibrary = errors.New("this build has no libseccomp")

// ExitNoLibrary is the exit status by which the helper says so.
const ExitNoLibrary = 3

// Source yields the OCI linux.seccomp object of a key as JSON. It is called
// only when the program is not in the cache.
type Source func() ([]byte, error)

// The trailer of a cache file.
const (
	trailerSize = 16
	magic       = 0x31_66_70_62_70_61_63_00 // "\0capbpf1" in little-endian order
)

// identity tells one installed helper from another.
type identity struct{ size, changed uint64 }

// checksum covers the instructions and all that they depend on. It is FNV-1a
// over words of 64 bits, with a rotation so that high bits spread too. It finds
// accidents, not attacks: whoever can write the directory is the user itself.
func checksum(key string, id identity, program []byte) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	sum := uint64(offset)
	add := func(word uint64) {
		sum = (sum ^ word) * prime
		sum = sum<<31 | sum>>33
	}
	for i := 0; i < len(key); i++ {
		add(uint64(key[i]))
	}
	add(id.size)
	add(id.changed)
	for i := 0; i+8 <= len(program); i += 8 {
		add(binary.LittleEndian.Uint64(program[i:]))
	}
	return sum
}

// seal appends the trailer.
func seal(key string, id identity, program []byte) []byte {
	out := make([]byte, 0, len(program)+trailerSize)
	out = append(out, program...)
	out = binary.LittleEndian.AppendUint64(out, magic)
	return binary.LittleEndian.AppendUint64(out, checksum(key, id, program))
}

// unseal checks the content of a file and gives its instructions, or nil.
func unseal(key string, id identity, content []byte) []byte {
	n := len(content) - trailerSize
	if !plausible(n) || binary.LittleEndian.Uint64(content[n:]) != magic {
		return nil
	}
	if binary.LittleEndian.Uint64(content[n+8:]) != checksum(key, id, content[:n]) {
		return nil
	}
	return content[:n:n]
}

// plausible says whether a program can have that many bytes.
func plausible(size int) bool {
	return size >= bpf.InstructionSize && size <= bpf.MaxInstructions*bpf.InstructionSize && size%bpf.InstructionSize == 0
}

// checkKey refuses keys that HashProfile and its siblings do not make; a key
// becomes a file name.
func checkKey(key string) error {
	valid := len(key) == 64
	for i := 0; valid && i < len(key); i++ {
		c := key[i]
		valid = '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
	}
	if !valid {
		return fault.New(fault.Seccomp, "look up filter", "the key is not a content hash")
	}
	return nil
}
